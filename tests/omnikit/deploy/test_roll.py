"""Which instances are rolled, and when it is refused. Done for real in test_roll_prefill."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hostkit.base.errors import InputError
from omnikit.config import config as config_config
from omnikit.config.config import Config
from omnikit.deploy import roll, status
from omnikit.plan.types import Plan
from omnikit.prepare import look
from omnikit.runs import releases
from omnikit.topology.topology import make_plan

ROOT = Path(__file__).resolve().parents[3]
CONFIG = config_config.load(str(ROOT / "tests/environments/breadth.yaml"))
PLAN = make_plan(CONFIG)


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
    with pytest.raises(InputError, match="has 1 prefill instance behind"):
        roll.chosen(make_plan(config_config.load("1p1d")), [])
    with pytest.raises(InputError, match="has 0 prefill instances"):
        roll.chosen(make_plan(config_config.load("colocated")), [])


def test_names_are_checked() -> None:
    assert [one.name for one in roll.chosen(PLAN, ["p1"])] == ["p1"]
    with pytest.raises(InputError, match="'d0'"):
        roll.chosen(PLAN, ["d0"])


def pools(prefill: int = 2, decode: int = 2, **more: Any) -> roll.Pools:
    """p0, p1, … and d0, d1, …, each with one server of its name."""
    names = [("prefill", f"p{i}") for i in range(prefill)]
    names += [("decode", f"d{i}") for i in range(decode)]
    return roll.Pools([roll.Instance(name, role, (), (name,)) for role, name in names], **more)


def order(made: roll.Pools, interrupt: bool = False) -> str:
    return " ".join(one.name for one in roll.in_order(made.known, made, interrupt))


def old(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "old")


def test_a_roll_is_refused_where_others_would_change() -> None:
    wanted = roll.chosen(PLAN, ["p0"])
    same = {"p0": "restart", "p1": "unchanged", "d0": "unchanged", "c0": "reload"}
    roll.refuse(PLAN, wanted, look.Look(same))
    with pytest.raises(InputError, match="these prefill instances would change: restart d0"):
        roll.refuse(PLAN, wanted, look.Look({**same, "d0": "restart"}))


def test_a_roll_is_refused_where_nobody_would_serve() -> None:
    made = pools(down={"p1"})
    p0, p1 = made.known[:2]
    assert roll.in_order([p1], made) == [p1]
    with pytest.raises(InputError, match="while p0 is restarted no other prefill"):
        roll.in_order([p0], made)
    assert roll.in_order([p0], made, interrupt=True) == [p0]
    with pytest.raises(InputError, match="while p0 is restarted no other prefill"):
        order(pools(down={"p0", "p1"}))


def test_those_that_do_not_serve_come_first_then_those_of_another_version() -> None:
    assert roll.unready(PLAN, observed(p0="ready")) == {"p1"}
    assert order(pools()) == "p0 d0 p1 d1"
    assert order(pools(down={"p1"})) == "p1 p0 d0 d1"
    assert order(pools(words=old("p0", "p1", "d0", "d1"))) == "p0 d0 p1 d1"
    assert order(pools(words=old("d0", "p1", "d1"))) == "d0 p1 d1 p0"
    assert order(pools(words=old("d1"))) == "d1 p0 d0 p1"  # p0 first would leave p1 without one
    assert order(pools(4, 3)) == "p0 d0 p1 d1 p2 p3 d2"
    assert order(pools(first="decode", words=old("p0", "p1", "d0", "d1"))) == "d0 p0 d1 p1"


@pytest.mark.parametrize("first", roll.ROLES)
@pytest.mark.parametrize("counts", [(2, 2), (3, 2), (2, 3), (4, 3)])
def test_from_wherever_a_roll_was_cut_off_a_pair_of_one_version_always_serves(
    first: str, counts: tuple[int, int]
) -> None:
    names = [one.name for one in pools(*counts).known]
    begun = order(pools(*counts, first=first, words=old(*names))).split()
    for done in range(len(names)):
        for down in (set(), {begun[done]}):  # cut off before it was taken out, or after
            made = pools(*counts, first=first, down=down, words=old(*set(begun[done:]) - down))
            left = roll.in_order(made.known, made)
            assert len(left) == len(names)
            for one in left:
                assert made.lets_go(one), (begun, done, one.name)
                told = made.told(one)
                assert one.name in told["out"] and "apart" not in told["versions"].values()
                made.restarted(one)
            assert made.told() == {"out": [], "versions": {}}


def test_a_role_with_one_instance_interrupts_and_is_paired_with_nobody_meanwhile() -> None:
    with pytest.raises(InputError, match="has 1 decode instance behind") as error:
        roll.chosen(PLAN, [], roll.ROLES)
    assert "--interrupt" in str(error.value) and "--role" in str(error.value)
    wanted = roll.chosen(PLAN, [], roll.ROLES, interrupt=True)
    assert [one.name for one in wanted] == ["p0", "p1", "d0"]
    assert [one.name for one in roll.chosen(PLAN, ["p1"], roll.ROLES)] == ["p1"]
    assert roll.interruptions(PLAN, wanted) == [
        "d0 is the only decode instance: while it is restarted, requests fail"
    ]
    made = pools(2, 1, words=old("p0", "p1", "d0"))
    assert order(made, interrupt=True) == "p0 d0 p1"
    assert made.told(made.known[2]) == {"out": [], "versions": {**made.words, "d0": "apart"}}
    assert made.told(made.known[0])["out"] == ["p0"]


@dataclass
class Rendered:
    """A deployment as far as it matters: two versions' worth of nginx.conf."""

    proxy_kind: str = "nginx-lua"
    plan: Plan = PLAN
    config: Config = CONFIG

    @property
    def files(self) -> dict[str, dict[str, str]]:
        servers = [server for one in roll.instances(PLAN, roll.ROLES) for server in one.servers]
        conf = "".join(f"        server {one};  # version new\n" for one in servers)
        files = [] if self.proxy_kind == "vllm-router" else [("files", {})]
        host = {"nodes": [dict([("name", "c0"), *files])]}
        return {"local": {"c0/nginx.conf": conf, "host.json": json.dumps(host)}}


def made_of(wanted: list[roll.Instance], actions: dict[str, str], **proxy: Any) -> roll.Pools:
    seen = {**observed(p0="ready", p1="ready", d0="ready"), "c0": proxy}
    return roll.pools_of(Rendered(), wanted, look.Look(actions), seen)  # type: ignore[arg-type]


def test_servers_keep_the_version_that_the_proxy_has_until_they_are_restarted() -> None:
    every = roll.chosen(PLAN, [], roll.ROLES, interrupt=True)
    p0, p1, d0 = [one.servers[0] for one in every]
    actions = dict.fromkeys(["p0", "p1", "d0"], "restart")
    assert made_of(every, actions, versions=old(p0, p1, d0)).words == old(p0, p1, d0)
    assert made_of(every, actions, versions={**old(p1, d0), p0: "new"}).words == old(p1, d0)
    assert made_of(every, actions).words == dict.fromkeys([p0, p1, d0], "before")
    left = made_of(every, actions, versions=old(p1, d0), left_out=[p0])
    assert (left.words, left.down) == (old(p1, d0), {"p0"})
    again = made_of(every, {**actions, "p0": "unchanged"}, versions=old(p1, d0), left_out=[p0])
    assert (again.words, again.down) == (old(p1, d0), set())  # it was restarted
    apart = made_of(every, actions, versions={**old(p0, p1), d0: "apart"})
    assert (apart.words, apart.down) == (old(p0, p1), {"d0"})
    assert apart.told(every[0])["versions"] == {**old(p0, p1), d0: "apart"}
    # Turned back after a roll that was cut off: the host still has the files of that.
    cut = made_of(every[:1], {"p0": "restart"}, versions={**old(p0), p1: "new", d0: "new"})
    assert cut.told(every[0])["versions"] == {**old(p0), p1: "new", d0: "new"}


def test_one_role_alone_is_refused_where_the_other_could_not_be_paired_with_it() -> None:
    prefill = roll.chosen(PLAN, [])
    assert made_of(prefill, {}).words == {}
    d0 = roll.instances(PLAN, ["decode"])[0].servers[0]
    with pytest.raises(InputError, match="d0 would not be restarted, but could not be paired"):
        made_of(prefill, {"d0": "unchanged"}, versions=old(d0))


def test_proxies_that_cannot_are_refused_by_name() -> None:
    prefill = roll.chosen(PLAN, [])
    every = roll.chosen(PLAN, [], roll.ROLES, interrupt=True)
    roll.refuse_kind(Rendered(), every)  # type: ignore[arg-type]
    roll.refuse_kind(Rendered("omni-nginx"), prefill)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="kind omni-nginx cannot leave a decode server out"):
        roll.refuse_kind(Rendered("omni-nginx"), every)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="kind vllm-router cannot leave a server out"):
        roll.refuse_kind(Rendered("vllm-router"), prefill)  # type: ignore[arg-type]


def test_a_dry_run_names_every_step() -> None:
    config = config_config.load(str(ROOT / "tests/environments/breadth.yaml"))
    lines = roll.dry_run(config, ["p1"])
    assert len(lines) == 4 and all(line.startswith("p1: ") for line in lines)


ROLE = {"p": "prefill", "d": "decode", "c": "proxy"}


def way_of(
    monkeypatch: pytest.MonkeyPatch,
    actions: str,
    kind: str = "nginx-lua",
    down: str = "",
    fixed: str = "",
    known: str = "",
    **more: Any,
) -> roll.Way:
    """What a deploy would do; actions: "p0 restart d0 remove". known: whom the proxy knows."""
    words = actions.split()
    found = look.Look(dict(zip(words[::2], words[1::2])))
    ended = [name for name, what in found.actions.items() if what in ("restart", "remove")]
    found.replaces = [name for name in ended if name not in down.split()]
    found.fixed = {"c0": fixed} if fixed else {}
    nodes = [*("p0", "p1", "d0", "c0"), *(name for name in words[::2])]
    seen: dict[str, dict[str, Any]] = {
        name: {"role": ROLE[name[0]], "state": "failed" if name in down.split() else "ready"}
        for name in nodes
    }
    every = {one.name: one.servers[0] for one in roll.instances(PLAN, roll.ROLES)}
    seen["c0"]["versions"] = {every[name]: "new" for name in known.split()}
    monkeypatch.setattr(status, "observe", lambda config, plan: seen)
    return roll.way(Rendered(kind), found, **more)  # type: ignore[arg-type]


def test_a_deploy_goes_one_by_one_where_that_interrupts_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = "p0 restart p1 restart d0 unchanged c0 reload"
    made = way_of(monkeypatch, both)
    assert (made.gently, made.names, made.interrupts) == (True, ["p0", "p1"], ())
    assert made.shown() == "one by one, without an interruption: p0, p1"
    assert made.question(["p0"]).endswith("replaced one by one, without an interruption.")
    assert way_of(monkeypatch, both, down="p1").names == ["p1", "p0"]
    assert way_of(monkeypatch, "c0 restart").names == ["c0"]
    assert way_of(monkeypatch, f"{both[:-6]} restart").names == ["c0", "p0", "p1"]


def test_a_deploy_that_starts_or_reloads_alone_or_finds_nobody_serving_is_not_slowed_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert way_of(monkeypatch, "p1 start c0 reload", down="p1") == roll.AT_ONCE
    assert way_of(monkeypatch, "p0 restart p1 restart", down="d0") == roll.AT_ONCE
    assert way_of(monkeypatch, "p0 restart p1 restart", down="c0") == roll.AT_ONCE
    assert roll.AT_ONCE.question(["p0"]) == "p0 would be ended and started anew."
    back = way_of(monkeypatch, "p1 restart c0 reload", down="p1", always=True)
    assert back.names == ["p1"]  # what failed is brought back, the rest serving
    assert way_of(monkeypatch, "p0 restart p1 start", known="p0 p1 d0").names == ["p0", "p1"]


@pytest.mark.parametrize(
    ("actions", "more", "why"),
    [
        ("p0 restart d0 restart", {}, "d0 is the only decode instance"),
        ("p0 restart d9 remove", {}, "d9 would end with the requests that are there"),
        ("p0 restart", {"kind": "vllm-router"}, "cannot leave a server out while it runs"),
        ("c0 restart", {"fixed": "its address or port would change"}, "its address or port"),
        ("c0 restart", {"kind": "omni-nginx"}, "tried with nginx-lua alone"),
        ("p0 restart", {"down": "p1"}, "while p0 is restarted no other prefill instance"),
        ("p0 restart", {"against": ["the source differs"]}, "the source differs"),
        ("p0 restart p1 start", {"known": "p0 d0"}, "p1 would join at the same time"),
    ],
)
def test_a_deploy_says_what_interrupts_and_why(
    monkeypatch: pytest.MonkeyPatch, actions: str, more: dict[str, Any], why: str
) -> None:
    made = way_of(monkeypatch, actions, **more)
    assert not made.gently and why in "; ".join(made.interrupts)
    assert "this interrupts the service, because" in made.question(["p0"])
    assert "the service was interrupted, because" in made.was()


def test_servers_of_another_image_under_the_same_name_are_not_paired_with_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    had = releases.Release(1, Path("/nowhere"), {"images": {"team/image:1": "sha256:a"}})
    monkeypatch.setattr(releases, "last", lambda environment: had)
    every = roll.chosen(PLAN, [], roll.ROLES, interrupt=True)
    p0, p1, d0 = [one.servers[0] for one in every]
    words = dict.fromkeys([p0, p1, d0], "new")
    found = look.Look({"p0": "unchanged", "p1": "restart", "d0": "restart"})
    found.images = {"team/image:1": "sha256:b"}
    seen = {**observed(p0="ready", p1="ready", d0="ready"), "c0": {"versions": words}}
    made = roll.pools_of(Rendered(), every, found, seen)  # type: ignore[arg-type]
    assert made.words == dict.fromkeys([p1, d0], "before")
