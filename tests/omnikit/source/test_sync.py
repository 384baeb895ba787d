"""The copy of the source on this machine itself, and what settings may not ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
import source_cases
from code_cases import listing, make_source
from settings_file import FLEET, load

from hostkit.base.errors import InputError
from hostkit.copy import record
from hostkit.source.git import VLLM
from omnikit.config.config import Config
from omnikit.fleet.jobs import Done
from omnikit.plan.types import Plan
from omnikit.source import sync
from omnikit.source.sync import Request
from omnikit.topology.topology import make_plan

HERE = """
profile: {{engine: cpu, model: tiny-qwen2}}
hosts: {{here: {{address: 127.0.0.1, connection: local}}}}
topology: {{colocated: [{{hosts: [here]}}]}}
paths: {{work_dir: {folder}/work, code_dir: "{code}", local_code_dir: "{source}"}}
"""


@pytest.fixture(autouse=True)
def own_control_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sync, "control_folder", lambda environment: tmp_path / "control")


def here(folder: Path, code: str = "", source: str = "") -> tuple[Config, Plan]:
    text = HERE.format(
        folder=folder, code=code or f"{folder}/t/code", source=source or f"{folder}/s"
    )
    config = load(folder, text)
    return config, make_plan(config)


def synced(config: Config, plan: Plan, **more: bool) -> Done:
    made = sync.source(config)
    return sync.sync(config, plan, ["here"], made, Request(**more))["here"]


@pytest.mark.needs("rsync")
def test_a_host_that_is_this_machine(tmp_path: Path, capsys) -> None:
    source = make_source(tmp_path / "s")
    config, plan = here(tmp_path)
    done = synced(config, plan, dry_run=True)
    assert done.result is not None and done.result["action"] == "would change"
    assert not (tmp_path / "t").exists()
    first = synced(config, plan).result
    assert first is not None and (first["action"], first["created"]) == ("synced", 11)
    assert first["bytes"] > 0 and first["needs"]["rebuild"] and "setup.py" in first["files"]
    again = synced(config, plan).result
    assert again is not None and (again["action"], again["changed"]) == ("unchanged", False)
    (source / "omni" / "engine.py").write_text("speed = 2\n")
    third = synced(config, plan).result
    assert third is not None and third["files"] == ["omni/engine.py"] and third["updated"] == 1
    assert third["needs"]["reinstall"] is False
    assert (tmp_path / "t" / "code" / "omni" / "engine.py").read_text() == "speed = 2\n"
    said = capsys.readouterr().err
    assert "host here: 11 created, 0 updated, 0 deleted" in said
    assert "host here: unchanged (" in said


@pytest.mark.needs("rsync")
def test_vllm_is_patched_here_before_it_is_copied_without_git(tmp_path: Path) -> None:
    source = source_cases.make_patchable(tmp_path / "s")
    config, plan = here(tmp_path)
    assert sync.patch(config) == ""  # no release, no patches
    text = HERE.format(folder=tmp_path, code=tmp_path / "t/code", source=source)
    config = load(tmp_path, f"{text}source: {{patches: {source_cases.PATCH_SCRIPT}}}\n")
    would = f"source {source}: vllm would be patched: 3 patches"
    assert sync.patch(config, dry_run=True) == would
    assert sync.patch(config) == f"source {source}: vllm patched: 3 patches"
    assert sync.patch(config) == f"source {source}: vllm has its 3 patches"
    assert synced(config, plan).result
    core = (tmp_path / "t/code" / VLLM / "vllm/core.py").read_text()
    assert "rank = local_rank + offset" in core
    assert not (tmp_path / "t/code" / VLLM / ".git").exists()


def test_work_that_patching_would_lose_is_named_with_the_setting_of_the_source(
    tmp_path: Path,
) -> None:
    source = source_cases.make_patchable(tmp_path / "s")
    (source / VLLM / "mine.py").write_text("mine\n")
    text = HERE.format(folder=tmp_path, code=tmp_path / "t/code", source=source)
    text += f"source: {{patches: {source_cases.PATCH_SCRIPT}}}\n"
    config = load(tmp_path, text)
    with pytest.raises(InputError, match=r"case\.yaml:\d+: .*would be lost:\n  mine\.py"):
        sync.patch(config)
    config = load(tmp_path, text.replace("patches:", "set_edits_aside: true, patches:"))
    assert "vllm patched: 3 patches" in sync.patch(config)


def test_one_folder_for_both_is_left_as_it_is(tmp_path: Path) -> None:
    source = make_source(tmp_path / "s")
    (tmp_path / "link").symlink_to(source)
    before = listing(source)
    config, plan = here(tmp_path, code=str(tmp_path / "link"))
    done = synced(config, plan).result
    assert done is not None and (done["action"], done["changed"]) == (sync.SAME, False)
    assert listing(source) == before and record.read(str(source)) is None


@pytest.mark.parametrize("inner", ["source", "copy"])
def test_a_folder_in_the_other_is_refused(tmp_path: Path, inner: str) -> None:
    source = make_source(tmp_path / "s" / "src")
    code = source / "copy" if inner == "copy" else tmp_path / "s"
    config, plan = here(tmp_path, code=str(code), source=str(source))
    error = synced(config, plan, replace=True).error
    assert isinstance(error, InputError) and "is in the other" in error.what
    assert listing(source)[b"setup.py"]


def test_nothing_to_copy_and_nowhere_to_put_it(tmp_path: Path) -> None:
    config = load(tmp_path, FLEET)
    assert not sync.is_wanted(config)
    with pytest.raises(InputError, match=r"defaults\.yaml:\d+: paths\.local_code_dir: no folder"):
        sync.source(config)
    config = load(tmp_path, FLEET + "paths: {code_dir: null, local_code_dir: /nowhere/x}\n")
    assert sync.is_wanted(config)
    with pytest.raises(InputError, match=r"case\.yaml:\d+: /nowhere/x: there is no such folder"):
        sync.source(config)
    with pytest.raises(InputError, match=r"paths\.code_dir: no folder is set"):
        sync.destination(config, make_plan(config))


@pytest.mark.parametrize(
    "code", ["/", "/root", "/usr/lib/x", "relative", "/data", "/data/models", "/data/omnikit"]
)
def test_a_dangerous_destination_is_refused_before_any_host_is_asked(
    tmp_path: Path, code: str
) -> None:
    config = load(tmp_path, FLEET + f"paths: {{code_dir: {code}, work_dir: /data/omnikit}}\n")
    with pytest.raises(
        InputError, match=r"case\.yaml:\d+: paths\.code_dir: .* (cannot be made|absolute path)"
    ):
        sync.destination(config, make_plan(config))


def test_a_pattern_that_cannot_be_used_names_its_place(tmp_path: Path) -> None:
    text = FLEET + "sync:\n  exclude:\n    - .git\n    - a/**/b\npaths: {local_code_dir: /x}\n"
    with pytest.raises(InputError, match=r"case\.yaml:15: sync\.exclude\.1: 'a/\*\*/b' cannot"):
        sync.source(load(tmp_path, text))


def test_the_shipped_patterns_keep_sources_and_leave_what_builds_make(tmp_path: Path) -> None:
    from hostkit.copy.tree import Excludes

    excludes = Excludes(load(tmp_path, FLEET).settings.sync.exclude)
    for path in (
        "build/build.sh",
        "build/patches/a.patch",
        "omni/dist.py",
        "vllm/distributed/a.py",
    ):
        parts = path.split("/")
        above = ["/".join(parts[:n]) for n in range(1, len(parts))]
        assert not excludes.match(path, False) and not any(excludes.match(p, True) for p in above)
    for folder in (
        ".git",
        "infer_engines/vllm/.git",
        "build/dist",
        "x/omni_infer.egg-info",
        ".deps",
    ):
        assert excludes.match(folder, True)
    for path in (
        "vllm/_C.abi3.so",
        "csrc/kernel.o",
        "omni/__pycache__/a.cpython-311.pyc",
        "a-1-cp311-cp311-linux_x86_64.whl",
        "infer_engines/vllm/vllm/_version.py",
        "build/omnikit-build.json",
    ):
        assert excludes.match(path, False)


def test_a_result_in_one_line() -> None:
    result = {"action": "synced", "created": 1, "updated": 2, "deleted": 0, "bytes": 2048}
    assert sync.line(result) == "1 created, 2 updated, 0 deleted, 2.0 KiB sent"
    would = {**result, "action": "would change", "would_send": 3 << 20}
    assert sync.line(would) == (
        "1 would be created, 2 would be updated, 0 would be deleted, 3.0 MiB at most"
    )
    assert sync.line({"action": "unchanged"}) == "unchanged"
