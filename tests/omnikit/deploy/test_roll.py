"""Which instances are rolled, and when it is refused. Done for real in test_roll_prefill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hostkit.base.errors import InputError
from omnikit.config import config as config_config
from omnikit.deploy import roll
from omnikit.prepare import look
from omnikit.topology.topology import make_plan

ROOT = Path(__file__).resolve().parents[3]
PLAN = make_plan(config_config.load(str(ROOT / "tests/environments/breadth.yaml")))


def observed(**states: str) -> dict[str, dict[str, Any]]:
    return {name: {"state": state} for name, state in states.items()}


def test_instances_carry_the_servers_that_the_proxy_knows() -> None:
    assert [(one.name, one.servers) for one in roll.instances(PLAN)] == [
        ("p0", ("127.0.0.1:25000",)),
        ("p1", ("127.0.0.1:25001",)),
    ]
    assert PLAN.proxy is not None
    large = make_plan(config_config.load("18p1d"))
    assert len(roll.instances(large)) == 18
    assert all(len(one.servers) == 1 for one in roll.instances(large))


def test_one_prefill_instance_alone_is_refused() -> None:
    with pytest.raises(InputError, match="has 1 prefill instances"):
        roll.chosen(make_plan(config_config.load("1p1d")), [])
    with pytest.raises(InputError, match="has 0 prefill instances"):
        roll.chosen(make_plan(config_config.load("colocated")), [])


def test_names_are_checked() -> None:
    assert [one.name for one in roll.chosen(PLAN, ["p1"])] == ["p1"]
    with pytest.raises(InputError, match="'d0'"):
        roll.chosen(PLAN, ["d0"])


def test_a_roll_is_refused_where_others_would_change_or_nobody_serves() -> None:
    wanted = roll.chosen(PLAN, ["p0"])
    fine = observed(p0="failed", p1="ready")
    same = {"p0": "restart", "p1": "unchanged", "d0": "unchanged", "c0": "reload"}
    roll.refuse(PLAN, wanted, look.Look(same), fine)
    with pytest.raises(InputError, match="would change: restart d0"):
        roll.refuse(PLAN, wanted, look.Look({**same, "d0": "restart"}), fine)
    with pytest.raises(InputError, match="while p0 is restarted no other"):
        roll.refuse(PLAN, wanted, look.Look(same), observed(p0="ready", p1="starting"))


def test_those_that_do_not_serve_come_first() -> None:
    both = roll.chosen(PLAN, [])
    assert roll.unready(PLAN, observed(p0="ready")) == {"p1"}
    assert [one.name for one in roll.in_order(both, {"p1"})] == ["p1", "p0"]
    assert [one.name for one in roll.in_order(both, set())] == ["p0", "p1"]
    roll.refuse(PLAN, both, look.Look({}), observed(p0="ready", p1="stopped"))
    with pytest.raises(InputError, match="while p0 is restarted no other"):
        roll.refuse(PLAN, both, look.Look({}), observed())


def test_a_dry_run_names_every_step() -> None:
    config = config_config.load(str(ROOT / "tests/environments/breadth.yaml"))
    lines = roll.dry_run(config, ["p1"])
    assert len(lines) == 4 and all(line.startswith("p1: ") for line in lines)
