"""What a profile would do. Done for real: test_profile_serving and test_deploy."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from settings_file import FLEET, load, write

from hostkit.base.errors import ActionError
from omnikit.profile import load as profile_load
from omnikit.profile import recording
from omnikit.profile.recording import Options, Work, as_lines, dry_run, profiled
from omnikit.timeline.progress import Progress
from omnikit.topology.topology import make_plan


def work(folder: Path, *sets: str) -> Work:
    now = load(folder, FLEET, sets)
    options = Options("all", ["p0"], steps=3)
    return Work(now, *profiled(str(write(folder, FLEET)), (), sets, now, options))


def test_a_dry_run_names_restarts_steps_and_the_place(tmp_path: Path) -> None:
    would = dry_run(work(tmp_path), tmp_path / "out")
    assert would["instances"] == ["p0"] and list(would["restart"]) == ["p0"]
    assert would["out"] == str(tmp_path / "out")
    lines = as_lines(would)
    assert lines[0] == "p0: restart, after a question, with"
    assert "p0: record 3 steps (the engine begins by itself)" in lines
    assert "p0: restart as before" in lines
    assert (would["requests"], would["concurrency"]) == (64, 2)
    assert "at most 64 completions, up to 2 at the same time" in lines


def test_a_profiler_that_is_always_on_needs_a_start_only_where_that_begins_it(
    tmp_path: Path,
) -> None:
    always = ["profiling.instances=[p0]", "profiling.steps=3"]
    assert work(tmp_path, *always).always
    assert dry_run(work(tmp_path, *always), None)["restart"] == {"p0": []}
    asked = dry_run(work(tmp_path, *always, "profiling.start=endpoint"), None)
    assert asked["restart"] == {}
    assert not any("restart" in line for line in as_lines(asked))
    assert asked["out"].endswith("/control/case/profiles")


@pytest.mark.parametrize("whole", [True, False])
def test_after_a_whole_recording_a_failed_restore_is_no_reason_to_lose_the_traces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Nothing runs here: what is played and switched is replaced, to fail at one place."""
    load = profile_load.Load(sent=1, answered=1)

    def recorded(*_: Any) -> profile_load.Load:
        if whole:
            return load
        raise ActionError("a server ended while it was profiled.")

    def turn_off(*_: Any) -> None:
        raise ActionError("host p0 cannot be reached.")

    monkeypatch.setattr(recording, "hold", lambda *_: nullcontext(SimpleNamespace(results={})))
    monkeypatch.setattr(recording.look, "look", lambda *_: SimpleNamespace(seen={}))
    monkeypatch.setattr("omnikit.profile.load.turn_on", lambda *_: ["p0"])
    monkeypatch.setattr("omnikit.profile.load.turn_off", turn_off)
    monkeypatch.setattr(recording, "_recorded", recorded)
    made = work(tmp_path)
    off: Any = SimpleNamespace(plan=make_plan(made.now), write=lambda: None)
    given: Any = (made, off, off, None, Progress())
    if whole:
        kept, not_back = recording._record(*given)
        assert kept is load and "invoke deploy" in str(not_back)
        assert "what ran before is not back: host p0" in str(not_back)
    else:
        with pytest.raises(ActionError, match="ended while it was profiled") as raised:
            recording._record(*given)
        assert "what ran before is not back" in str(raised.value)
