"""What is to do, by what the hosts said."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.prepare import look as prepare_look
from omnikit.topology.topology import make_plan

ROOT = Path(__file__).resolve().parents[3]
PLAN = make_plan(config.load(str(ROOT / "tests/environments/breadth.yaml")))


def look() -> prepare_look.Look:
    actions = {"p0": "restart", "p1": "unchanged", "d0": "start", "c0": "restart"}
    reasons = {"p0": "its settings differ: A", "c0": "its settings differ"}
    return prepare_look.Look(actions, reasons, ["p0", "c0"], hosts={"local": dict(actions)})


def test_changes_are_what_does_not_stay() -> None:
    assert look().changes == {"p0": "restart", "d0": "start", "c0": "restart"}


def test_only_what_the_chosen_steps_touch() -> None:
    servers = prepare_look.of_steps(look(), PLAN, {"run_server"})
    assert servers.changes == {"p0": "restart", "d0": "start"}
    assert servers.replaces == ["p0"] and set(servers.reasons) == {"p0"}
    proxy = prepare_look.of_steps(look(), PLAN, {"run_proxy"})
    assert proxy.changes == {"c0": "restart"} and proxy.replaces == ["c0"]
    assert prepare_look.of_steps(look(), PLAN, {"sync_code"}).changes == {}


def test_all_problems_are_told_at_once() -> None:
    found = look()
    found.refuse_problems()
    found.problems = ["local: no memory", "local: no port"]
    with pytest.raises(InputError, match=r"no memory\n.*no port"):
        found.refuse_problems()
