"""What the checks share: looks that end in time, and how a finding looks."""

from __future__ import annotations

import threading
import time

import pytest
from check_cases import limits, look, one, parameters

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import some
from hostkit.checks import base
from hostkit.checks.base import existing, one_line, pairs, within
from hostkit.ranks.device_query import NoAnswer


def test_a_required_check_fails_and_another_one_warns_and_both_keep_what_to_do(tmp_path):
    def checks(group):
        group.add("a", "A", True, found="x", todo="nothing")
        group.add("b", "B", False, found="x", needed="y", todo="mend")
        group.add("c", "C", False, found="x", required=False)
        group.unknown("d", "D", "nobody knows")

    found = look(checks, parameters(tmp_path)).checks
    assert [(e["state"], e["required"], e["todo"]) for e in found] == [
        ("ok", True, ""),
        ("failed", True, "mend"),
        ("warning", False, ""),
        ("unknown", False, ""),
    ]
    assert found[1] == {
        "id": "b",
        "title": "B",
        "state": "failed",
        "required": True,
        "found": "x",
        "needed": "y",
        "todo": "mend",
    }


def test_a_program_that_hangs_is_ended_and_named(tmp_path):
    def checks(group):
        group.ask("sleep", "3600")

    began = time.monotonic()
    with pytest.raises(ActionError, match=r"no answer within 0\.2 s") as caught:
        look(checks, parameters(tmp_path, checks=limits(timeout_s=0.2)))
    assert "sleep 3600" in str(caught.value)
    assert time.monotonic() - began < 10


def test_a_missing_program_is_an_error_and_no_crash(tmp_path):
    with pytest.raises(InputError, match="cannot start no-such-tool"):
        look(lambda group: group.ask("no-such-tool"), parameters(tmp_path))


def test_a_program_that_cannot_even_be_killed_is_given_up(tmp_path, monkeypatch):
    """As one that waits in a driver. Nothing here can make such a process: run itself blocks."""
    released = threading.Event()
    monkeypatch.setattr(run, "run", lambda *_, **__: released.wait(60))
    monkeypatch.setattr(base, "_DYING_S", 0.1)
    try:
        with pytest.raises(NoAnswer, match=r"no answer within 0\.1 s from: npu-smi info"):
            look(
                lambda group: group.ask("npu-smi", "info"),
                parameters(tmp_path, checks=limits(timeout_s=0.1)),
            )
    finally:
        released.set()


def test_within_hands_results_and_errors_on():
    assert within(5, "x", lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, "x", lambda: 1 // 0)


def test_the_root_of_a_test_is_before_system_paths_alone(tmp_path):
    group = look(lambda group: None, parameters(tmp_path, root="/tmp/tree"))
    assert str(group.path("/dev/davinci0")) == "/tmp/tree/dev/davinci0"
    assert str(look(lambda g: None, parameters(tmp_path)).path("/dev/x")) == "/dev/x"
    assert one(look(lambda g: g.unknown("a", "A", "w"), parameters(tmp_path)), "a")["found"] == "w"


def test_small_helpers(tmp_path):
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert one_line("a\n\n  b \n") == "a; b"
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdefgh"), 3) == "a, b, c and 5 more"
    assert pairs('A=1\nb="two"\n# no\n') == {"a": "1", "b": "two"}
