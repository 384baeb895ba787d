"""The report that people read: held against whole recorded texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hostkit.checks.base import entry
from omnikit.checks import report

GOLDEN = Path(__file__).resolve().parents[2] / "golden_text"


def one(name: str, state: str = "ok", **more: Any) -> dict[str, Any]:
    made = entry(
        name,
        more.get("title", f"the {name}"),
        state == "ok",
        required=state != "warning",
        found=more.get("found", f"{name} as found"),
        needed=more.get("needed", f"{name} as needed"),
        todo=more.get("todo", f"mend {name}"),
    )
    return {**made, "state": state}


FOUR = {
    "p0": [one("ssh"), one("python"), one("ports", "failed", found="9000 is held by nginx")],
    "p1": [one("ssh"), one("python"), one("ports"), one("clock", "warning", found="3 s ahead")],
    "d0": [one("ssh"), one("python"), one("ports"), one("clock", "warning", found="3 s ahead")],
    "d1": [one("ssh", "failed", found="permission denied\n(publickey)")],
}


def test_the_table_and_below_it_what_is_not_ok() -> None:
    assert report.text(FOUR) + "\n" == (GOLDEN / "check_env.txt").read_text()


def test_all_shows_what_is_ok_too() -> None:
    said = report.text(FOUR, everything=True)
    assert "ok  the ssh\n  on: p0, p1, d0 (3 hosts)\n  found: ssh as found\n" in said
    assert "mend ssh" in said and said.count("mend python") == 0


def test_one_host_whose_checks_are_all_ok_is_a_table_and_a_line() -> None:
    said = report.text({"local": [one("python"), one("ports")]})
    assert said == ("check       local\nthe python  ok\nthe ports   ok\n\n1 host: 2 ok; ready")


def test_what_to_do_that_names_the_host_stands_once_for_all() -> None:
    checks = {name: [one("ssh", "failed", todo=f"ssh {name}")] for name in ("p0", "p1")}
    said = report.text(checks)
    assert "  on: p0, p1 (2 hosts)\n" in said
    assert "  what to do for p0, and likewise for the others: ssh p0\n" in said
    assert "ssh p1" not in said


def test_many_hosts_with_equal_columns_are_one_column() -> None:
    checks = {f"host{n}": [one("python"), one("ports")] for n in range(36)}
    checks["host7"] = [one("python"), one("ports", "failed")]
    lines = report.text(checks).splitlines()
    assert lines[0].split() == ["check", "host0+34", "host7"]
    assert lines[2].split() == ["the", "ports", "ok", "FAILED"]
    assert lines[3].startswith("host0+34: host0, host1, ") and "host7" not in lines[3]


def test_of_several_entries_of_one_check_the_worst_is_shown() -> None:
    checks = {"a": [one("ports"), one("ports", "failed"), one("ports", "warning")]}
    assert "the ports  FAILED" in report.text(checks)


def test_rows_come_in_the_order_of_the_checks() -> None:
    checks = {"a": [one("ssh", "failed")], "b": [one("ssh"), one("python"), one("ports")]}
    rows = [line.split()[1] for line in report.text(checks).splitlines()[1:4]]
    assert rows == ["ssh", "python", "ports"]


@pytest.mark.parametrize(
    ("state", "passed"), [("ok", True), ("warning", True), ("unknown", True), ("failed", False)]
)
def test_only_a_failed_required_check_is_a_failure(state: str, passed: bool) -> None:
    checks = {"a": [one("x")], "b": [one("x", state)]}
    assert report.passed(checks) is passed
    assert ("not ready" in report.text(checks)) is not passed


def test_a_failed_check_that_is_not_required_is_no_failure() -> None:
    assert report.passed({"a": [{**one("x", "failed"), "required": False}]})


def test_counts_are_in_words() -> None:
    states = ["ok", "warning", "ok", "failed", "failed", "unknown"]
    assert report.counts(one("x", s) for s in states) == ("2 ok, 1 warning, 2 failed, 1 not known")


def test_data_is_the_same_for_programs() -> None:
    data = report.data("2p1d", FOUR, {"p0": {"python": "3.11.2"}})
    assert (data["environment"], data["passed"]) == ("2p1d", False)
    assert list(data["hosts"]) == ["p0", "p1", "d0", "d1"]
    assert data["hosts"]["p0"]["facts"] == {"python": "3.11.2"}
    assert data["hosts"]["d1"]["checks"] == FOUR["d1"] and data["hosts"]["d1"]["facts"] == {}
