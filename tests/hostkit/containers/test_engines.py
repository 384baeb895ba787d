"""What images and engines are for, in their words and in uname's."""

from __future__ import annotations

import platform

import pytest

from hostkit.containers import engines


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("Linux/AMD64\n", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("/arm64", "linux/arm64"),
        ("linux/", ""),
        ("", ""),
        ("unknown/unknown", ""),
    ],
)
def test_one_platform_has_one_name(text: str, same: str) -> None:
    assert engines.normal(text) == same


def test_what_is_not_known_differs_from_nothing() -> None:
    assert engines.differ("linux/arm64", "linux/amd64")
    assert not engines.differ("linux/aarch64", "linux/arm64/v8")
    assert not engines.differ("", "linux/arm64") and not engines.differ("linux/x", "")


def test_this_machine_in_both_words() -> None:
    assert engines.machine(engines.own()) == platform.machine()
    assert engines.machine("linux/riscv64") == "riscv64"
