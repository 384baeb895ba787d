"""What a Python has of omni-infer, under whatever name, and what of it is the user's source."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import source_cases

from hostkit.source.git import VLLM
from hostkit.versions import inside


def test_names_as_they_were_at_some_time() -> None:
    assert inside.spellings(["vllm", "omni_infer"]) == ["vllm", "omni_infer", "omniinfer"]
    found = {"omniinfer": {"version": "0.4.1"}, "vllm": {"version": "0.9.0"}}
    wanted = ["vllm", "omni_infer", "omni_placement"]
    assert inside.installed(found, wanted) == {"vllm": "0.9.0", "omni_infer": "0.4.1"}


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inside") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder


def install(venv: Path, name: str, version: str, editable: Path | None = None) -> None:
    """What an installer leaves of a package."""
    place = Path(sysconfig.get_path("purelib", vars={"base": str(venv)}))
    info = place / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"{info.name}/METADATA,,\n")
    if editable is not None:
        said = {"url": editable.as_uri(), "dir_info": {"editable": True}}
        (info / "direct_url.json").write_text(json.dumps(said))


def test_what_is_the_users_source_is_told_from_the_rest(venv: Path, tmp_path: Path) -> None:
    code = source_cases.make_patchable(tmp_path / "code")
    install(venv, "vllm", "0.9.0+empty", code / VLLM)
    install(venv, "omniinfer", "0.1.0")
    given: dict[str, Any] = {
        "packages": ["vllm", "omni_infer"],
        "dir": str(code),
        "patches": source_cases.PATCH_SCRIPT,
        "places": [{"python": str(venv / "bin/python")}],
    }
    [found] = inside.look(given)["places"].values()
    assert (found["packages"], found["source"]) == ({"omni_infer": "0.1.0"}, ["vllm"])
    assert found["unpatched"].startswith("3 of 3 patches of omni-infer: scale_out.patch")
    words = ["bash", "bash_install_code.sh"]
    subprocess.run(words, cwd=code / "infer_engines", check=True, capture_output=True)
    [found] = inside.look(given)["places"].values()
    assert found["unpatched"] is None
    [found] = inside.look({**given, "dir": None})["places"].values()
    assert (found["source"], found["unpatched"]) == ([], None)
