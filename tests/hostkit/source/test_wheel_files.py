"""Wheels in a folder: one of each package, and whole."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from hostkit.source import wheel_files

PACKAGES = ["omni_infer", "vllm", "omni_placement"]


def wheel(folder: Path, name: str) -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.py", "a = 1\n" * 100)
    return path


def test_names_are_compared_as_packages_are() -> None:
    assert wheel_files.normal("Omni_Infer") == wheel_files.normal("omni-infer") == "omni-infer"
    assert wheel_files.normal("a.-_b") == "a-b"


def test_wheels_are_found_by_package(tmp_path: Path) -> None:
    a = wheel(tmp_path, "omni_infer-0.4.1-py3-none-any.whl")
    b = wheel(tmp_path, "vllm-0.9.0+empty-py3-none-any.whl")
    wheel(tmp_path, "omni_vllm-1.0-py3-none-any.whl")
    assert wheel_files.one_each(tmp_path, PACKAGES, ["omni-placement"]) == {
        "omni_infer": a,
        "vllm": b,
    }
    assert wheel_files.version(b) == "0.9.0+empty"


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    wheel(tmp_path, "omni_infer-0.4.1-py3-none-any.whl")
    with pytest.raises(InputError, match="no wheel of vllm and omni_placement"):
        wheel_files.one_each(tmp_path, PACKAGES, [])


def test_of_two_none_is_guessed(tmp_path: Path) -> None:
    for version in ("0.9.0", "0.9.1"):
        wheel(tmp_path, f"vllm-{version}-py3-none-any.whl")
    with pytest.raises(InputError, match=r"vllm-0\.9\.0-py3-none-any\.whl, vllm-0\.9\.1-py3"):
        wheel_files.one_each(tmp_path, ["vllm"], [])


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
        wheel_files.one_each(tmp_path, ["vllm"], [])


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ("py3-none-any", None),
        ("py2.py3-none-any", None),
        ("cp311-cp311-linux_aarch64", None),
        ("cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64", None),
        ("cp38-abi3-manylinux_2_28_aarch64", None),
        ("1-cp311-cp311-linux_aarch64", None),  # with a build's number
        ("py39-none-any", None),
        ("cp311-cp311-linux_x86_64", "it is for x86_64, not for aarch64"),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", "it is for x86_64 and x86_64,"),
        ("cp311-cp311-macosx_11_0_arm64", "it is for macosx_11_0_arm64, not for aarch64"),
        ("cp310-cp310-linux_aarch64", "it is for cp310, not for Python 3.11"),
        ("cp312-abi3-linux_aarch64", "it is for cp312, not for Python 3.11"),
        ("py2-none-any", "it is for py2, not for Python 3.11"),
        ("pp310-pypy310_pp73-linux_aarch64", "it is for pp310,"),
    ],
)
def test_a_wheels_tags_say_what_it_is_for(tags: str, why: str) -> None:
    found = wheel_files.unfit(Path(f"vllm-0.9.0+empty-{tags}.whl"), "aarch64", "3.11")
    assert found == why or (found and why and found.startswith(why))


def test_what_is_not_known_is_not_held_against_it() -> None:
    assert wheel_files.unfit(Path("vllm-0.9.0-cp310-cp310-linux_x86_64.whl")) is None
    assert wheel_files.unfit(Path("vllm-0.9.0-cp310-cp310-linux_x86_64.whl"), "x86_64") is None
    assert wheel_files.unfit(Path("odd.whl"), "x86_64", "3.11") is None


def test_wheels_that_do_not_fit_are_all_named() -> None:
    names = ["a-1-cp311-cp311-linux_x86_64.whl", "b-1-py3-none-any.whl", "c-1-cp310-none-any.whl"]
    with pytest.raises(InputError, match=r"a-1-.*x86_64, not for aarch64\n.*c-1-.*cp310") as caught:
        wheel_files.check_fit(map(Path, names), "aarch64", "3.11")
    assert "b-1" not in str(caught.value) and "--in-container" in str(caught.value)
