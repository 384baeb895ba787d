"""What servers use of a source's copy."""

from __future__ import annotations

from pathlib import Path

import code_cases
import pytest

from hostkit.copy import copy as copy_copy
from hostkit.copy import record as copy_record
from hostkit.copy.record import needs

FOLDERS = ["infer_engines/vllm", "."]


def copied(tmp_path: Path) -> Path:
    """A source and its complete copy, without a transfer over a network."""
    source = code_cases.make_source(tmp_path / "src")
    (source / "infer_engines" / "vllm").mkdir(parents=True)
    (source / "infer_engines" / "vllm" / "pyproject.toml").write_text("[project]\n")
    (source / "README.md").write_text("words\n")
    code_cases.copied(source, tmp_path / "copy")
    return source


def test_a_folder_that_is_no_copy_of_ours_says_nothing(tmp_path: Path) -> None:
    assert copy_record.used(str(tmp_path)) is None
    assert copy_record.digest(str(tmp_path / "none")) is None
    assert copy_record.digest(None) is None


@pytest.mark.needs("rsync")
def test_what_is_beside_the_packages_changes_no_check_sum(tmp_path: Path) -> None:
    source, copy = copied(tmp_path), str(tmp_path / "copy")
    before = copy_record.used(copy, FOLDERS)
    assert before is not None and before.complete
    (source / "README.md").write_text("other words\n")
    code_cases.copied(source, tmp_path / "copy")
    after = copy_record.used(copy, FOLDERS)
    assert after is not None and after.digest == before.digest


@pytest.mark.needs("rsync")
def test_a_module_changes_what_servers_use_but_not_what_is_built(tmp_path: Path) -> None:
    source, copy = copied(tmp_path), str(tmp_path / "copy")
    before = copy_record.used(copy, FOLDERS)
    (source / "omni" / "engine.py").write_text("speed = 2\n")
    code_cases.copied(source, tmp_path / "copy")
    after = copy_record.used(copy, FOLDERS)
    assert before is not None and after is not None
    assert after.digest != before.digest and after.built == before.built


@pytest.mark.needs("rsync")
def test_what_one_package_is_built_from_concerns_that_one(tmp_path: Path) -> None:
    source, copy = copied(tmp_path), str(tmp_path / "copy")
    before = copy_record.used(copy, FOLDERS)
    (source / "infer_engines" / "vllm" / "pyproject.toml").write_text("[project]\n# more\n")
    code_cases.copied(source, tmp_path / "copy")
    after = copy_record.used(copy, FOLDERS)
    assert before is not None and after is not None
    assert after.built["."] == before.built["."]
    assert after.built["infer_engines/vllm"] != before.built["infer_engines/vllm"]


@pytest.mark.needs("rsync")
def test_a_transfer_that_was_cut_is_not_complete(tmp_path: Path) -> None:
    source = copied(tmp_path)
    (source / "omni" / "engine.py").write_text("speed = 3\n")
    copy_copy.begin(code_cases.given(source, tmp_path / "copy"))
    found = copy_record.used(str(tmp_path / "copy"))
    assert found is not None and not found.complete
    record = copy_record.read(str(tmp_path / "copy"))
    assert record is not None and not record["complete"]


@pytest.mark.parametrize(
    ("path", "reinstall", "rebuild"),
    [
        ("omni/engine.py", False, False),
        ("README.md", False, False),
        ("tests/test_kernel.cpp", False, False),
        ("omni/accelerators/sched/proxy.c", True, True),
        ("infer_engines/vllm/csrc/cache.cu", True, True),
        ("infer_engines/vllm/CMakeLists.txt", True, True),
        ("infer_engines/patches/vllm.patch", True, True),
        ("build/build.sh", True, True),
        ("setup.py", True, True),
        ("pyproject.toml", True, False),
        ("requirements.txt", True, False),
        ("requirements/npu.txt", True, False),
        ("omni/words.txt", False, False),
    ],
)
def test_packages_that_run_from_the_source(path: str, reinstall: bool, rebuild: bool) -> None:
    found = needs([path])
    assert (found["reinstall"], found["rebuild"]) == (reinstall, rebuild)
    assert (path in found["why"]) is reinstall


def test_packages_that_were_copied_want_every_file_that_is_in_them() -> None:
    found = needs(["omni/engine.py", "docs/a.md"], editable=False)
    assert found == {
        "reinstall": True,
        "rebuild": True,
        "why": "copied into a package: omni/engine.py",
    }
    assert needs(["docs/a.md"], editable=False)["reinstall"] is False


def test_nothing_changed_and_many_changed() -> None:
    assert needs([]) == {
        "reinstall": False,
        "rebuild": False,
        "why": "nothing of a package changed",
    }
    found = needs([f"csrc/{n}.cpp" for n in range(9)] + ["setup.cfg"])
    assert found["why"] == (
        "built from: csrc/0.cpp, csrc/1.cpp, csrc/2.cpp and 6 more; describes a package: setup.cfg"
    )
