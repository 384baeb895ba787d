"""What a profile would do. Done for real: test_profile_servers and test_deploy_environment."""

from __future__ import annotations

from pathlib import Path

from omnikit.profile_choice import Options, profiled
from omnikit.profile_run import Work, as_lines, dry_run
from settings_file import FLEET, load, write


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
    assert asked["out"].endswith("build/control/case/profiles")
