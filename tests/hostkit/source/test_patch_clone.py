"""Upstream's script says itself which patches it applies, however it is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import source_cases

from hostkit.base.errors import InputError
from hostkit.source import patch_clone
from hostkit.source.git import VLLM


def names(code: Path, text: str = "") -> list[str]:
    if text:
        (code / source_cases.PATCH_SCRIPT).write_text(text)
    found = patch_clone.patches(code, source_cases.PATCH_SCRIPT, code / VLLM)
    assert all(one.parent == (code / "omni/adaptors/vllm/patches").resolve() for one in found)
    return [one.name for one in found]


def test_upstreams_form(tmp_path: Path) -> None:
    code = source_cases.make_patchable(tmp_path / "omniinfer")
    before = {path: path.stat().st_mtime_ns for path in code.rglob("*")}
    assert names(code) == list(source_cases.PATCHES)  # without the one that is a comment
    assert {path: path.stat().st_mtime_ns for path in code.rglob("*")} == before


@pytest.mark.parametrize(
    "text",
    [
        "cd vllm && for one in scale_out new_file on_top; do\n"
        "git apply ../../omni/adaptors/vllm/patches/$one.patch; done\n",
        'here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)\nroot=$here/../omni/adaptors/vllm\n'
        'for one in scale_out new_file on_top; do git -C "$here/vllm" apply'
        " --whitespace=nowarn $root/patches/$one.patch; done\n",
        "set -euo pipefail\npip config unset global.index-url\ncd ./vllm\ngit reset --hard\n"
        "git clean -fd\nrm -rf /nowhere && test -d .git\nP=$PWD/../../omni/adaptors/vllm/patches\n"
        "git apply --check $P/scale_out.patch && git apply $P/scale_out.patch\n"
        "git -c user.name=x am $P/new_file.patch $P/on_top.patch\ncd ../other || exit 0\n",
        "cd vllm; (cd ../../omni/adaptors/vllm/patches; ls [so]*_*.patch new*; true) | sort -r |"
        " xargs -I{} git apply ../../omni/adaptors/vllm/patches/{}\n",
    ],
)
def test_other_forms(tmp_path: Path, text: str) -> None:
    code = source_cases.make_patchable(tmp_path / "omniinfer")
    assert sorted(names(code, text)) == sorted(source_cases.PATCHES)


def test_nothing_that_it_calls_is_done(tmp_path: Path) -> None:
    code = source_cases.make_patchable(tmp_path / "omniinfer")
    text = f"""cd vllm
rm -rf {code}/omni/__init__.py; pip install x; touch {tmp_path}/made; echo x >>../vllm/vllm/core.py
git apply ../../omni/adaptors/vllm/patches/scale_out.patch
"""
    core = (code / VLLM / "vllm/core.py").read_text()
    assert names(code, text) == ["scale_out.patch"]
    assert (code / "omni/__init__.py").exists() and not (tmp_path / "made").exists()
    assert (code / VLLM / "vllm/core.py").read_text() == core


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    code = source_cases.make_patchable(tmp_path / "omniinfer")
    with pytest.raises(InputError, match=r"does not say which patches it applies.* 3"):
        names(code, "cd vllm\nexit 3\n")
    with pytest.raises(InputError, match="no patch was found"):
        names(code, "cd vllm\ngit checkout v0.9.0\n")
    with pytest.raises(InputError, match=r"a patch that .* applies is not there") as caught:
        names(code, "cd vllm\ngit apply ../../omni/nothing.patch\n")
    assert str(caught.value.where).endswith("/omniinfer/omni/nothing.patch")
    (code / source_cases.PATCH_SCRIPT).unlink()
    with pytest.raises(InputError, match="is not in this source"):
        names(code)
