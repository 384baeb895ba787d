"""The build, with real git and pip on stand-in sources: done, unchanged, failed, cut off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from docker_host import wait_for
from source_cases import Sources, commit, git, make_sources, parameters, set_version

from hostkit.base import records
from hostkit.base.errors import ActionError, InputError
from hostkit.source import build_run, build_state, source_jobs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
VLLM_WHEEL = "vllm-0.9.0-py3-none-any.whl"
OMNI_WHEEL = "omni_infer-0.4.1-py3-none-any.whl"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return make_sources(tmp_path_factory.mktemp("repos"))


@pytest.fixture
def given(tmp_path: Path, sources: Sources) -> dict[str, Any]:
    """What a build of fetched sources is told."""
    made = parameters(sources, tmp_path / "code")
    source_jobs.fetch(made)
    return made


def dist(given: dict[str, Any]) -> Path:
    return Path(given["dir"]) / "build/dist"


def vllm(given: dict[str, Any]) -> Path:
    return Path(given["dir"]) / "infer_engines/vllm"


def is_patched(wheel: Path) -> bool:
    with zipfile.ZipFile(wheel) as archive:
        return b"patched" in archive.read("vllm/__init__.py")


def script(given: dict[str, Any], *lines: str) -> dict[str, Any]:
    """The same with another command, which does not change the sources."""
    return {**given, "build": ["bash", "-c", "\n".join(lines)]}


def test_wheels_are_built_once(given, capsys) -> None:
    done = source_jobs.build(given)
    assert (done["action"], done["changed"]) == ("built", True)
    assert {one["file"]: one["version"] for one in done["wheels"]} == {
        OMNI_WHEEL: "0.4.1",
        VLLM_WHEEL: "0.9.0",
    }
    assert is_patched(dist(given) / VLLM_WHEEL)
    assert "building in" in capsys.readouterr().err
    log = Path(done["log"])
    written = log.stat().st_mtime_ns
    again = source_jobs.build(given)
    assert (again["action"], again["changed"]) == ("unchanged", False)
    assert again["wheels"] == done["wheels"] and log.stat().st_mtime_ns == written
    # The patches that the build left are its own: the clone still counts as clean.
    assert git(vllm(given), "status", "--porcelain") != ""
    assert source_jobs.fetch(given)["changed"] is False
    assert source_jobs.build(given)["changed"] is False


def test_what_differs_is_built_again_from_clean_sources(given, sources, tmp_path: Path) -> None:
    source_jobs.build(given)
    (dist(given) / VLLM_WHEEL).unlink()
    assert source_jobs.build(given)["action"] == "built"
    assert is_patched(dist(given) / VLLM_WHEEL)
    assert source_jobs.build({**given, "build": ["bash", "-e", "build/build.sh"]})["changed"]
    source_jobs.fetch(given | {"omniinfer": {**given["omniinfer"], "ref": "main"}})
    assert source_jobs.build(given)["changed"]
    assert not git(vllm(given), "stash", "list")
    assert (dist(given) / "replaced" / VLLM_WHEEL).is_file()


def test_another_version_leaves_one_wheel_of_each(given, sources: Sources, tmp_path: Path) -> None:
    source_jobs.build(given)
    newer = tmp_path / "newer"
    git(tmp_path, "clone", "--quiet", str(sources.omniinfer), str(newer))
    set_version(newer, "0.4.1", "0.4.2")
    commit(newer, tag="v0.4.2")
    urls = [f"file://{sources.omniinfer}", f"file://{newer}"]
    moved = {**given, "omniinfer": {"urls": urls, "ref": "v0.4.2", "commit": None}}
    assert source_jobs.fetch(moved)["sources"]["omniinfer"]["action"] == "moved"
    done = source_jobs.build(moved)
    names = [one["file"] for one in done["wheels"]]
    assert names == ["omni_infer-0.4.2-py3-none-any.whl", VLLM_WHEEL]
    assert sorted(path.name for path in dist(given).glob("*.whl")) == names


def test_a_build_that_was_killed_is_ended_and_begun_anew(given, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    code = (
        "import json, sys; from hostkit.source import source_jobs;"
        " source_jobs.build(json.loads(sys.argv[1]))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), "HOLD": str(hold)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(given)], env=env, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: sleeps(given), "the script holds, after the first wheel")
    finally:
        process.kill()
        process.wait()
    left = record(given)
    assert left["done"] is False and records.survivors(left["process"])
    (dist(given) / OMNI_WHEEL).write_bytes(b"half")
    done = source_jobs.build(given)
    assert done["action"] == "built" and not records.survivors(left["process"])
    assert is_patched(dist(given) / VLLM_WHEEL)
    assert not (dist(given) / "replaced" / OMNI_WHEEL).exists()
    # What was there is not thrown away: nobody can know whose it was.
    assert "left by a build that was cut off" in git(vllm(given), "stash", "list")
    assert source_jobs.build(given)["action"] == "unchanged"


def record(given: dict[str, Any]) -> dict[str, Any]:
    return build_state.read(Path(given["dir"]))


def sleeps(given: dict[str, Any]) -> bool:
    """Whether the script is where it holds; ended before, it would leave nobody behind."""
    for pid in records.survivors(record(given).get("process")):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "sleep\n":
                return True
    return False


def test_after_an_interrupt_the_next_run_goes_on_without_a_stash(given, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    env = {**os.environ, "HOLD": str(hold)}
    words = [ROOT / "scripts/build_from_source.py", "--dir", given["dir"], "--only", "build"]
    words += ["--set", f"source.python={sys.executable}", "--set", "source.free_mib=1"]
    process = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)
    try:
        wait_for((dist(given) / VLLM_WHEEL).exists, "the first wheel")
        process.terminate()
        assert "interrupted" in process.communicate(timeout=60)[1] and process.returncode == 130
    finally:
        process.kill()
        process.wait()
    assert not records.survivors(record(given)["process"])
    assert source_jobs.build(given)["action"] == "built"
    assert not git(vllm(given), "stash", "list")


def test_a_failed_build_shows_its_end_its_log_and_the_cause(given) -> None:
    lines = ["echo compiling", "echo \"ModuleNotFoundError: No module named 'torch'\"", "exit 7"]
    with pytest.raises(ActionError) as caught:
        source_jobs.build(script(given, *lines))
    text = str(caught.value)
    assert "its exit status is 7" in text and "(No module named 'torch')" in text
    assert "compiling" in text and "--in-container NAME" in text
    assert (Path(given["dir"]) / "build/omnikit-build.log").read_text().startswith("compiling")
    assert record(given)["done"] is False


def test_a_script_that_ends_well_without_wheels_has_failed(given) -> None:
    with pytest.raises(ActionError) as caught:
        source_jobs.build(script(given, "pyhton setup.py bdist_wheel", "cd ."))
    assert "no wheel of omni_infer and vllm" in str(caught.value)
    assert "pyhton: command not found" in str(caught.value)


def test_a_broken_wheel_is_no_wheel(given) -> None:
    names = f"build/dist/{VLLM_WHEEL} build/dist/{OMNI_WHEEL}"
    with pytest.raises(ActionError, match="not whole"):
        source_jobs.build(script(given, f"for one in {names}; do echo half > $one; done"))
    assert record(given)["done"] is False


def test_patches_that_do_not_fit_fail_the_build_though_the_script_ends_well(given) -> None:
    (vllm(given) / "vllm/__init__.py").write_text("other = 1\n")
    with pytest.raises(ActionError) as caught:
        source_jobs.build(given)
    assert "its exit status is 0" in str(caught.value)
    assert "does not fit this vLLM" in str(caught.value)
    assert (vllm(given) / "vllm/__init__.py").read_text() == "other = 1\n"


def test_a_version_that_the_build_does_not_find_or_moves_away_from(
    given, sources: Sources, tmp_path: Path
) -> None:
    main = {**given, "dir": str(tmp_path / "other"), "vllm": {**given["vllm"], "ref": "main"}}
    source_jobs.fetch(main)
    with pytest.raises(ActionError, match="check out a version that the clone does not have"):
        source_jobs.build(main)
    source_jobs.fetch({**main, "dir": given["dir"]})
    with pytest.raises(ActionError, match="has moved vllm from") as caught:
        source_jobs.build(given)
    assert sources.vllm_commit in str(caught.value) and "source.vllm_ref" in str(caught.value)


def test_changes_of_a_person_are_built_and_left_alone(given) -> None:
    mine = Path(given["dir"]) / "omni/mine.py"
    mine.write_text("a = 1\n")
    done = source_jobs.build(given)
    assert done["note"] == "omniinfer has 1 changes that are in no commit"
    assert source_jobs.build(given)["action"] == "unchanged"
    mine.write_text("a = 2\n")
    assert source_jobs.build(given)["action"] == "built"
    assert mine.read_text() == "a = 2\n"
    with pytest.raises(InputError, match="omni/mine"):
        source_jobs.fetch(given)


def test_sources_that_are_no_clones_are_built_each_time(given) -> None:
    code = Path(given["dir"])
    build = code / "infer_engines/bash_install_code.sh"
    build.write_text("#!/bin/bash\n")
    for folder in (code, vllm(given)):
        (folder / ".git").rename(folder / "old-git")
    assert source_jobs.build(given)["action"] == "built"
    assert source_jobs.build(given)["action"] == "built"


def test_a_half_fetched_source_is_not_built(given) -> None:
    from hostkit.source import clone_look

    clone_look.write_mark(vllm(given), {"state": clone_look.MOVING})
    with pytest.raises(InputError, match="vllm is half fetched"):
        source_jobs.build(given)


def test_too_little_space_is_said_before(given) -> None:
    with pytest.raises(InputError, match="free_mib"):
        source_jobs.build({**given, "free_mib": 1e12})
    assert record(given) == {}


def test_the_build_knows_its_python_and_trusts_its_folders(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    env = build_run.environment(Path("/code"), {"python": "/venv/bin/python", "http_proxy": "p"})
    assert env["PATH"] == "/venv/bin:/usr/bin" and env["https_proxy"] == "p"
    assert env["GIT_CONFIG_COUNT"] == "2"
    assert env["GIT_CONFIG_VALUE_1"] == "/code/infer_engines/vllm"
    plain = build_run.environment(Path("/code"), {"python": "python3"})
    assert "PATH" not in plain and "http_proxy" not in plain


def test_the_log_of_a_full_disk_names_it(given) -> None:
    with pytest.raises(ActionError, match="the disk is full"):
        source_jobs.build(script(given, "echo 'x: No space left on device'; exit 1"))
