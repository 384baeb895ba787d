"""Settings of servers and of their profiler."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_file import FLEET, load

from hostkit.base.errors import InputError


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("profiling.start=never", "profiling.start"),
        ("profiling.steps=0", "profiling.steps"),
        ("profiling.instances=p0", "profiling.instances"),
        ("profiling.server={arg: 1}", "args"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, setting: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load(tmp_path, FLEET, [setting])


def test_what_a_profiled_server_is_told_is_part_of_its_settings(tmp_path: Path) -> None:
    config = load(tmp_path, FLEET, ["profiling.server={args: {seed: 3}}"])
    server, _ = config.server_for("prefill", 0, "p0", profiled=True)
    assert server.args["seed"] == 3 and "PROFILER_STOP_STEP" in server.env
    plain, _ = config.server_for("prefill", 0, "p0")
    assert "seed" not in plain.args and "PROFILER_STOP_STEP" not in plain.env
