"""What differs with a profiler on, and who does not serve. Done for real: test_profile_serving."""

from __future__ import annotations

from pathlib import Path

from settings_file import FLEET, plan

from omnikit.profile.load import differences, unready


def test_differences_are_told_as_flags_and_variables(tmp_path: Path) -> None:
    before = plan(tmp_path, FLEET)
    after = plan(tmp_path, FLEET, ["profiling.instances=[d1]", "profiling.steps=2"])
    assert differences(before, before) == {}
    assert differences(before, after) == {
        name: [
            f"VLLM_TORCH_PROFILER_DIR=/data/omnikit/profiles/{name}",
            "PROFILER_TOKEN_THRESHOLD=1",
            "PROFILER_STOP_STEP=2",
        ]
        for name in ("d0", "d1")
    }
    assert list(differences(after, before)) == ["d0", "d1"]
    flag = plan(tmp_path, FLEET, ["roles.prefill.server.args.seed=7"])
    assert differences(before, flag) == {"p0": ["--seed 7"], "p1": ["--seed 7"]}


def test_who_does_not_serve(tmp_path: Path) -> None:
    made = plan(tmp_path, FLEET)
    observed = {name: {"state": "ready"} for name in ("p0", "p1", "d0", "c0")}
    assert unready(made, observed) == ["d1"]
    assert unready(made, {**observed, "d1": {"state": "ready"}, "c0": {}}) == ["c0"]
    assert unready(made, {}) == ["p0", "p1", "d0", "d1", "c0"]
