"""Our start scripts start what omni-infer's own playbook was recorded to start, server by server.

What differs stands in tests/facts/recorded/differences.yaml, each with its reason: an unexplained
difference fails, and so does an explained one that no longer occurs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from recorded_servers import (
    RECORDED,
    Difference,
    differences,
    inventory,
    inventory_file,
    recorded,
    role_of,
    same_name,
    started,
)

from hostkit.containers import containers as containers_containers
from omnikit.config import config
from omnikit.plan import containers as plan_containers
from omnikit.topology.topology import make_plan

pytestmark = pytest.mark.slow

TWO_PREFILL = inventory([["10.0.0.1"], ["10.0.0.2"]], ["10.0.0.3", "10.0.0.4"])
ONE_PREFILL = inventory([["10.0.0.1"]], ["10.0.0.3", "10.0.0.4"])
HALVES = [",".join(map(str, devices)) for devices in (range(8), range(8, 16))]
ONE_HOST = inventory([["10.0.0.1"]], ["10.0.0.1"], *HALVES)
RAY_PREFILL = inventory([["10.0.0.1", "10.0.0.2"]], ["10.0.0.3", "10.0.0.4"])
CASES = {
    "omni-infer-v0.4.1-2p1d": (TWO_PREFILL, "v0.4.1"),
    "omni-infer-v0.4.1-ray-prefill": (RAY_PREFILL, "v0.4.1"),
    "omni-infer-v0.5.0-2p1d": (TWO_PREFILL, "v0.5.0"),
    "omni-infer-2026-03-2p1d": (TWO_PREFILL, "2026-03"),
    "omni-infer-2026-06-1p1d": (ONE_PREFILL, "2026-06"),
    "omni-infer-2026-09-1p1d-single-host": (ONE_HOST, "2026-09"),
}
# What the recorded playbook was told, and the inventory of the tests does not say.
_PANGU = ["profile.model=openpangu-2.0-flash"]
TOLD = {
    "omni-infer-2026-06-1p1d": [
        *_PANGU,
        "model.path=/path/to/model/weights",
        "model.served_name=pangu_ultra_moe",
    ],
    "omni-infer-2026-09-1p1d-single-host": [
        *_PANGU,
        "model.path=/data/models/openPangu-2.0-Flash",
        "model.served_name=pangu-v2-92b",
    ],
}
EXPLAINED = yaml.safe_load((RECORDED / "differences.yaml").read_text(encoding="utf-8"))


def explains(entry: dict[str, Any], difference: Difference, case: str, role: str) -> bool:
    """Whether a reviewed entry speaks of this difference."""
    if (entry["kind"], role) not in [(difference.kind, r) for r in entry.get("roles", [role])]:
        return False
    if difference.name not in entry["names"] or case not in entry.get("recordings", CASES):
        return False
    return not entry.get("same_name") or same_name(difference.recorded, difference.ours)


@pytest.mark.parametrize("case", CASES)
def test_what_starts_is_what_was_recorded(case: str, tmp_path: Path) -> None:
    layout, release = CASES[case]
    theirs = recorded(case)
    harness = started(tmp_path, layout, f"profile.omni_version={release}", *TOLD.get(case, ()))
    ours = harness.servers()
    # A recording of one instance alone says nothing of the others.
    roles = {role_of(started) for started in theirs.values()}
    ours = {key: made for key, made in ours.items() if role_of(made) in roles}
    assert sorted(ours) == sorted(theirs)
    used: set[tuple[int, str]] = set()
    unexplained = []
    for key, server in theirs.items():
        role = role_of(server)
        for found in differences(server, ours[key]):
            reasons = [k for k, e in enumerate(EXPLAINED) if explains(e, found, case, role)]
            used.update((k, found.name) for k in reasons)
            if not reasons:
                unexplained.append((*key, found))
    assert not unexplained, "\n".join(map(str, unexplained))
    for k, entry in enumerate(EXPLAINED):
        if case in entry.get("recordings", CASES) and roles & set(entry.get("roles", roles)):
            gone = [name for name in entry["names"] if (k, name) not in used]
            assert not gone, f"no longer different: {gone} ({entry['reason']})"


def test_the_second_host_of_a_prefill_instance_counts_no_devices_before_it(tmp_path: Path) -> None:
    """vLLM hands SERVER_OFFSET to no Ray worker: it is what `ray start` was given."""
    harness = started(tmp_path, RAY_PREFILL)
    heads = [node for node in harness.plan.nodes if node.ray]
    assert [node.name for node in heads] == ["p0", "p1"]
    for node in heads:
        made = harness.run(node, "ray")[-1]
        assert made.argv[:2] == ("ray", "start")
        assert made.env["SERVER_OFFSET"] == "0"
        assert made.env["ASCEND_RT_VISIBLE_DEVICES"] == ",".join(map(str, range(16)))
        assert made.env["RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES"] == "1"


def test_every_reviewed_difference_has_a_reason() -> None:
    for entry in EXPLAINED:
        assert set(entry) <= {"kind", "names", "reason", "recordings", "roles", "same_name"}
        assert len(entry["reason"]) > 20
        assert set(entry.get("recordings", [])) <= set(CASES)


def container_words(words: list[str]) -> set[str]:
    """The words of a docker run, a flag with its value in one; names and image left out."""
    made, rest = set(), words[words.index("run") + 1 : -1]
    while rest:
        word = rest.pop(0)
        if word.startswith("--name") or word == "--label":
            rest.pop(0)
        elif word in ("-e", "-v", "-u", "-w"):
            made.add(f"{word} {rest.pop(0)}")
        else:
            made.add({"--net=host": "--network=host"}.get(word, word))
    return made


@pytest.mark.parametrize("role", ["prefill", "decode", "proxy"])
def test_containers_are_made_as_recorded(role: str, tmp_path: Path) -> None:
    """What upstream's has besides is either a folder below /data or told to the servers by us."""
    loaded = config.load(None, [str(inventory_file(tmp_path, TWO_PREFILL))], environ={})
    plan = make_plan(loaded)
    host = {"prefill": "p0", "decode": "d0", "proxy": "p0"}[role]
    name = {"prefill": "_p0", "decode": "_d0", "proxy": "_c0"}[role]
    specs = plan_containers.host_specs(
        loaded.settings, plan, next(h for h in plan.hosts if h.name == host)
    )
    [spec] = [spec for made, spec in specs.items() if made.endswith(name)]
    ours = container_words(["docker", *containers_containers.create_words(spec)])
    text = (RECORDED / "omni-infer-v0.5.0-2p1d.json").read_text(encoding="utf-8")
    theirs = container_words(json.loads(text)["containers"][role])
    assert ours - theirs == {"-v /home:/home", "-w /home"}  # as the install guide has it
    told = {"-e RANKTABLE_SAVE_PATH=/tmp/ranktable_save_path", "-e LOG_PATH=/data/log_path"}
    told |= {"-e PROXY_NODE_PORT=7000"} if role == "proxy" else set()
    inside = {word for word in theirs - ours if word.startswith(("-v /data/", "-v /tmp/"))}
    assert theirs - ours - inside == {*told, "-w /data"}
