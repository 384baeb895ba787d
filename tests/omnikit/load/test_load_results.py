"""Figures out of the generator's result."""

from __future__ import annotations

import csv
import doctest
import io
import json
from pathlib import Path
from typing import Any, Callable

import pytest
from load_cases import a_raw, a_result

from hostkit.base.errors import InputError
from omnikit.load import results
from omnikit.load.levels import Level
from omnikit.load.results import at_level, broken, csv_text, error_kind, keep, ok, read, run_of

TRACEBACK = """Traceback (most recent call last):
  File "/x/serve.py", line 1, in f
aiohttp.client_exceptions.ServerDisconnectedError: Server disconnected
"""


def test_examples() -> None:
    assert doctest.testmod(results).failed == 0


def test_figures_of_a_run() -> None:
    run = run_of(Level(2), a_raw(), 4, 4)
    assert (run["completed"], run["failed"], run["errors"], run["short"]) == (4, 0, {}, 0)
    assert (run["requests_per_s"], run["output_tokens_per_s"]) == (2.0, 8.0)
    assert run["ttft_ms"] == {"mean": 10.0, "p50": 10.0, "p90": 10.0, "p95": 10.0, "p99": 10.0}
    assert run["raw"]["ttfts"] == [0.01] * 4
    assert ok(a_result("x", run))


def test_errors_are_counted_by_kind() -> None:
    raw = {**a_raw(failed=3), "errors": ["", "", "", "", "Bad Gateway", TRACEBACK, TRACEBACK]}
    run = run_of(Level(2), raw, 8, 4)
    assert run["errors"] == {
        "ServerDisconnectedError: Server disconnected": 2,
        "answer: Bad Gateway": 1,
        "no reason given": 1,  # 8 were sent, 7 are known
    }
    assert run["failed"] == 4 and not ok(a_result("x", run))


def test_answers_shorter_than_asked_for_are_counted() -> None:
    assert run_of(Level(2), a_raw(failed=1), 5, 5)["short"] == 4
    assert error_kind("") == "no reason given"


def test_without_an_answer_there_are_no_figures() -> None:
    """The generator gives zeros then, which would look like a very fast server."""
    run = run_of(Level(1), a_raw(failed=4, good=0, ms=0.0), 4, 4)
    assert run["requests_per_s"] is None and set(run["itl_ms"].values()) == {None}
    assert not ok(a_result("x", run))
    lost = broken(Level(1), "ValueError: no", 4)
    assert lost["errors"] == {"the load generator: ValueError: no": 4} and lost["failed"] == 4


def test_a_sweep_that_ended_early_is_not_ok() -> None:
    levels = [{"concurrency": 1, "rate": None}, {"concurrency": 2, "rate": None}]
    assert not ok(a_result("x", run_of(Level(1), a_raw(), 4, 4), levels=levels))


def test_csv_has_one_row_per_run() -> None:
    runs = [run_of(Level(n), a_raw(failed=n), 4 + n, 4) for n in (1, 2)]
    rows = list(csv.DictReader(io.StringIO(csv_text(a_result("x, y", *runs)))))
    assert [row["concurrency"] for row in rows] == ["1", "2"]
    assert rows[1]["errors"] == "2 x answer: Bad Gateway" and rows[0]["name"] == "x, y"
    assert rows[0]["ttft_p99_ms"] == "10.0" and rows[0]["rate"] == ""


def test_what_is_kept_is_read_again_from_file_or_folder(tmp_path: Path) -> None:
    result = a_result("x", run_of(Level(1), a_raw(), 4, 4))
    keep(tmp_path, result)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.csv", "result.json"]
    assert read(tmp_path) == read(tmp_path / "result.json") == result
    assert at_level(result, {"concurrency": 1, "rate": None}) == result["runs"][0]
    assert at_level(result, {"concurrency": 2, "rate": None}) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.clear() or r.update(format=results.FORMAT), '"name" is missing'),
        (lambda r: r.update(runs={}), '"runs" is missing or of another kind'),
        (lambda r: r["load"].pop("chat"), '"load" has no "chat"'),
        (lambda r: r["runs"].append(7), "a run is of another kind"),
        (lambda r: r["runs"][0].pop("rate"), 'a run has no number "rate"'),
        (lambda r: r["runs"][0].update(completed="4"), 'a run has no number "completed"'),
        (lambda r: r["runs"][0]["itl_ms"].pop("p99"), 'a run has no whole "itl_ms"'),
        (lambda r: r["runs"][0].update(raw={"ttfts": None}), 'a run has no whole "raw"'),
    ],
)
def test_a_result_that_lacks_something_is_refused_when_it_is_read(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    """Not when it is shown, after the whole load has run."""
    result = json.loads(json.dumps(a_result("x", run_of(Level(1), a_raw(), 4, 4))))
    change(result)
    keep_as(tmp_path / "result.json", result)
    with pytest.raises(InputError, match=f"no result of this command: {said}"):
        read(tmp_path)


def keep_as(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("text", ["", "[]", json.dumps({"format": "another"})])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"--compare .*other\.json: "):
        read(path)
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "none.json")
