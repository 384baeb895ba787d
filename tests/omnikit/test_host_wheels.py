"""Wheels in a folder: one of each package, and whole."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from omnikit import host_wheels
from omnikit.errors import InputError

PACKAGES = ["omni_infer", "vllm", "omni_placement"]


def wheel(folder: Path, name: str) -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.py", "a = 1\n" * 100)
    return path


def test_names_are_compared_as_packages_are() -> None:
    assert host_wheels.normal("Omni_Infer") == host_wheels.normal("omni-infer") == "omni-infer"
    assert host_wheels.normal("a.-_b") == "a-b"


def test_wheels_are_found_by_package(tmp_path: Path) -> None:
    a = wheel(tmp_path, "omni_infer-0.4.1-py3-none-any.whl")
    b = wheel(tmp_path, "vllm-0.9.0+empty-py3-none-any.whl")
    wheel(tmp_path, "omni_vllm-1.0-py3-none-any.whl")
    assert host_wheels.one_each(tmp_path, PACKAGES, ["omni-placement"]) == {
        "omni_infer": a,
        "vllm": b,
    }
    assert host_wheels.version(b) == "0.9.0+empty"


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    wheel(tmp_path, "omni_infer-0.4.1-py3-none-any.whl")
    with pytest.raises(InputError, match="no wheel of vllm and omni_placement"):
        host_wheels.one_each(tmp_path, PACKAGES, [])


def test_of_two_none_is_guessed(tmp_path: Path) -> None:
    for version in ("0.9.0", "0.9.1"):
        wheel(tmp_path, f"vllm-{version}-py3-none-any.whl")
    with pytest.raises(InputError, match=r"vllm-0\.9\.0-py3-none-any\.whl, vllm-0\.9\.1-py3"):
        host_wheels.one_each(tmp_path, ["vllm"], [])


@pytest.mark.parametrize("where", ["end", "middle"])
def test_a_broken_one_is_refused(tmp_path: Path, where: str) -> None:
    path = wheel(tmp_path, "vllm-0.9.0-py3-none-any.whl")
    data = bytearray(path.read_bytes())
    if where == "end":
        data = data[: len(data) // 2]
    else:
        data[60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match="not whole"):
        host_wheels.one_each(tmp_path, ["vllm"], [])
