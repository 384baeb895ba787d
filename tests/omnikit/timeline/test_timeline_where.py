"""Where the time went: steps, hosts, waiting, critical path."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timeline_cases import write

from omnikit.timeline import summary
from omnikit.timeline.progress import Span
from omnikit.timeline.records import Record, read


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return read(write(tmp_path))


def test_waiting_counts_once_where_hosts_wait_together(record: Record) -> None:
    assert summary.waiting(record) == 80.0
    assert summary.hosts(record) == {
        "here": (3.0, 0.0),
        "p0": (44.0, 40.0),
        "d0": (82.0, 80.0),
    }


def test_the_slowest_step_comes_first_with_its_slowest_host(record: Record) -> None:
    first = summary.steps(record)[0]
    assert (first.step, first.seconds, first.slowest) == ("Wait for the servers", 80.0, "d0")
    assert (first.hosts, first.longest, first.shortest) == (2, 80.0, 40.0)


def test_the_critical_path_follows_the_slowest_host_and_has_no_hole(record: Record) -> None:
    path = summary.critical_path(record)
    assert [(part.step, part.host, part.seconds) for part in path] == [
        ("set up", "here", 1.0),
        (summary.BETWEEN, "", 2.0),
        ("Start the servers", "d0", 2.0),
        ("Wait for the servers", "d0", 80.0),
        ("Start the proxy", "p0", 3.0),
        (summary.BETWEEN, "", 2.0),
        ("real requests", "here", 2.0),
    ]


_TIMES = st.tuples(st.floats(0, 100), st.floats(0, 50))


@given(st.lists(_TIMES, max_size=12))
def test_the_critical_path_is_as_long_as_the_run(times: list[tuple[float, float]]) -> None:
    spans = tuple(Span(f"s{i}", "h", a, a + d, "ok") for i, (a, d) in enumerate(times))
    end = max([1.0, *(span.end for span in spans)])
    record = Record(Path("x.jsonl"), "deploy", "o", 0.0, end, "ok", "", spans, ())
    path = summary.critical_path(record)
    assert sum(part.seconds for part in path) == pytest.approx(end, abs=0.06 * (len(spans) + 1))
    assert summary.covered(spans) <= end + 1e-6


def test_a_step_and_a_host_say_what_did_not_end_well(tmp_path: Path) -> None:
    spans = [("Ship", f"p{n}", 0, 1, "unreachable" if n == 3 else "changed") for n in range(6)]
    spans += [("Wait", f"p{n}", 1, 2, "failed" if n in (4, 5) else "ok") for n in (0, 1, 2, 4, 5)]
    spans += [("Wait", "p5", 3, 4, "failed"), ("Clean", "p0", 4, 5, "ok")]
    record = read(write(tmp_path, spans=spans, error="x"))
    results = {step.step: step.result for step in summary.steps(record)}
    assert results == {"Ship": "unreachable: p3", "Wait": "failed on p4, p5", "Clean": "ok"}
    hosts = summary.host_results(record)
    assert (hosts["p0"], hosts["p3"], hosts["p5"]) == ("ok", "unreachable: Ship", "failed: Wait")
    both = [("Ship", "p5", 0, 1, "failed"), ("Ship", "p3", 0, 1, "unreachable")]
    [step] = summary.steps(read(write(tmp_path, spans=both)))
    assert step.result == "failed on p5; unreachable: p3"
    many = [("Ship", f"h{n}", 0, 1, "failed") for n in range(36)]
    [step] = summary.steps(read(write(tmp_path, spans=many)))
    assert step.result.endswith("h6, h7 and 28 more")
