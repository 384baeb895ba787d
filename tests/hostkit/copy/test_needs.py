"""What a change of the source asks of the packages that were installed from it."""

from __future__ import annotations

import pytest

from hostkit.copy.needs import needs


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
