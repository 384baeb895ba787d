"""The order of the steps and what is refused; the whole way is in tests/test_run_msmodelslim.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from slim_case import Machine

from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import say
from omnikit.config import config
from omnikit.weights.msmodelslim import run as msmodelslim_run
from omnikit.weights.msmodelslim import tool as msmodelslim_tool
from omnikit.weights.msmodelslim.run import State, describe, run_msmodelslim

pytestmark = pytest.mark.slow


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def tool_of(machine: Machine) -> msmodelslim_tool.Tool:
    words = [word[len("--set=") :] for word in machine.options() if word.startswith("--set=")]
    return msmodelslim_tool.of_settings(config.load("local", [], words, environ={}).settings)


def test_the_report_of_a_whole_run(machine: Machine) -> None:
    tool = tool_of(machine)
    planned = describe(machine.source, machine.out, tool, say)
    assert (planned.result, planned.ready, planned.steps) == ("would be converted", True, {})
    done = run_msmodelslim(machine.source, machine.out, tool, say)
    assert done.result == "converted" and len(done.checks) == len(planned.checks)
    assert describe(machine.source, machine.out, tool, say).result == "unchanged"


def test_an_unfinished_result_that_is_gone_is_made_anew(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, said = tool_of(machine), []
    with monkeypatch.context() as patched:
        patched.setattr(msmodelslim_run, "_finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_msmodelslim(machine.source, machine.out, tool, say)
    assert State.load(machine.side / "state.json").done("converted")
    next(machine.partial.glob("*.safetensors")).unlink()
    with pytest.raises(ActionError, match="it was converted, but now: 1 of 2 shards missing"):
        run_msmodelslim(machine.source, machine.out, tool, say)
    shutil.rmtree(machine.partial)
    assert run_msmodelslim(machine.source, machine.out, tool, said.append).result == "converted"
    assert f"because of what changed: {machine.partial} is gone" in "\n".join(said)
    assert machine.out.is_dir()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_result_inside_the_source_or_around_it(machine: Machine) -> None:
    link, back = machine.root / "link", machine.source.parent / "back"
    link.symlink_to(machine.source)
    back.symlink_to(machine.source.parent)
    inside = (machine.source, machine.source / "a" / "b", machine.source.parent)
    for out in (*inside, link, link / "a" / "b", back, back / machine.source.name / "x"):
        with pytest.raises(InputError, match="lie in one another"):
            describe(machine.source, out, tool_of(machine), say)


def test_a_link_that_leads_nowhere_is_in_the_way_of_the_result(machine: Machine) -> None:
    machine.out.symlink_to(machine.root / "nowhere")  # seen now, not after hours
    with pytest.raises(InputError, match="it is there already"):
        describe(machine.source, machine.out, tool_of(machine), say)


def test_a_setting_is_kept_as_a_digest_only(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(msmodelslim_run, "convert", interrupt)
    tool = tool_of(machine)
    with pytest.raises(KeyboardInterrupt):
        run_msmodelslim(machine.source, machine.out, tool, say)
    assert "expandable_segments" not in (machine.side / "state.json").read_text()
