"""A load from its beginning to its kept result, with the stand-in generator."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Optional

import pytest
from load_cases import PLACE, a_load, a_target
from needs import needs

from hostkit.base.errors import ActionError
from omnikit.config import config
from omnikit.load import measurement, results
from omnikit.load.levels import Load
from omnikit.load.targets import Place

LOCAL = config.load("local", (), ["benchmark.generator=vllm-0.9"], environ={})
BEGAN = datetime(2026, 1, 2, 3, 4, 5)


def measured(into: Path, model: str = "tiny", load: Optional[Load] = None) -> dict[str, Any]:
    return measurement.measure(LOCAL, a_target(model), load or a_load(), PLACE, into, BEGAN)


def test_the_warm_up_comes_first_and_every_level_after() -> None:
    words = measurement.arguments("vllm-0.9", a_target(), a_load())
    assert words.count("---") == 2 and "--num-prompts=2" in words[: words.index("---")]
    assert measurement.arguments("vllm-0.9", a_target(), a_load(warmups=0)).count("---") == 1


def test_the_result_has_every_level_and_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = measured(tmp_path)
    assert [(r["concurrency"], r["completed"]) for r in result["runs"]] == [(1, 6), (4, 6)]
    assert result["cause"] is None and result["began"] == "2026-01-02 03:04:05"
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert "6/6" in (tmp_path / measurement.LOG).read_text()
    said = capsys.readouterr().err
    assert "warm-up, 2 requests: began" in said and "concurrency 4: 6 of 6 answered in 2 s" in said


def test_the_folder_is_new_and_named_by_the_time(tmp_path: Path) -> None:
    made = measurement.folder(LOCAL, tmp_path, BEGAN)
    assert made == tmp_path / "2026-01-02_03-04-05" and made.is_dir()
    with pytest.raises(ActionError, match="cannot be made: File exists"):
        measurement.folder(LOCAL, tmp_path, BEGAN)


def test_failed_requests_are_in_the_result(tmp_path: Path) -> None:
    result = measured(tmp_path, "half")
    assert [run["errors"] for run in result["runs"]] == [{"answer: Bad Gateway": 3}] * 2
    assert result["cause"] is None


def test_after_nothing_was_answered_the_cause_is_asked_for(tmp_path: Path) -> None:
    result = measured(tmp_path, "none", a_load(warmups=0))
    assert len(result["runs"]) == 1 and result["runs"][0]["completed"] == 0
    assert "ConnectionRefusedError" in result["cause"]
    assert measurement.drawn(tmp_path, result, []) == []


def test_a_failed_warm_up_ends_it(tmp_path: Path) -> None:
    result = measured(tmp_path, "none")
    assert [(run["requests"], run["warm_up"]) for run in result["runs"]] == [(2, True)]
    assert "warm-up: 2 x answer: Bad Gateway" in results.as_text(result, [])


def test_a_generator_that_fails_is_the_cause(tmp_path: Path) -> None:
    result = measured(tmp_path, "broken")
    assert result["cause"].startswith(
        "the load generator failed: ValueError: Initial test run failed\n"
    )
    assert "Traceback" in (tmp_path / measurement.LOG).read_text()


def test_an_option_that_the_generator_refuses_is_shown_with_the_setting(tmp_path: Path) -> None:
    result = measured(tmp_path, "bad-arguments")
    assert result["cause"].startswith("the load generator failed: SystemExit: 2\n")
    assert result["cause"].endswith("unrecognized arguments: --temperature=0")
    said = measurement.remedy(result, tmp_path)
    assert "benchmark.generator" in said and "engine.venv" in said and "invoke status" not in said
    other = measurement.remedy(measured(tmp_path, "half"), tmp_path)
    assert "invoke status" in other and "engine.venv" not in other


@pytest.mark.parametrize("size", ["8k", "24k"])
def test_on_a_full_disk_the_figures_are_there_and_the_error_names_it(
    tmp_path: Path, size: str
) -> None:
    needs("mount", root=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "omnikit-test", str(tmp_path)]
    subprocess.run(mount, check=True)
    try:
        (tmp_path / "other").write_bytes(b"x" * 4096)
        result = measured(tmp_path)
        assert [run["completed"] for run in result["runs"]] == [6, 6]
        with pytest.raises(ActionError, match="cannot be kept: No space left") as raised:
            measurement.finish(tmp_path, result, [])
        assert f"df -h {tmp_path}" in str(raised.value) and "--out DIR" in str(raised.value)
        kept = {path.name for path in tmp_path.iterdir()}
        assert not {name for name in kept if name.startswith(".")}
        assert ("result.json" in kept) == (size == "24k")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_generator_that_never_begins_shows_its_words(tmp_path: Path) -> None:
    nothing = Place("host x", (sys.executable, "-c", "print('no engine'); exit(3)"))
    with pytest.raises(ActionError, match=r"host x: .* exit status 3 before the first answer") as e:
        measurement.measure(LOCAL, a_target(), a_load(), nothing, tmp_path, BEGAN)
    assert "no engine" in str(e.value) and str(tmp_path / measurement.LOG) in str(e.value)


def test_a_missing_engine_is_named(tmp_path: Path) -> None:
    """A Python without vLLM: what a host without the engine would say."""
    bare = Place("host x", PLACE.before, {})
    result = measurement.measure(LOCAL, a_target(), a_load(), bare, tmp_path, BEGAN)
    assert "ModuleNotFoundError: No module named 'vllm'" in result["cause"]


def test_what_was_measured_is_kept_when_the_rest_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def stop(line: str) -> None:
        seen.append(line)
        if "concurrency 4: began" in line:
            raise KeyboardInterrupt

    monkeypatch.setattr(measurement, "say", stop)
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path)
    kept = json.loads((tmp_path / "result.json").read_text())
    assert [run["concurrency"] for run in kept["runs"]] == [1]
