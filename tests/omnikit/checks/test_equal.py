"""What must be equal on all hosts, and who is named when it is not."""

from __future__ import annotations

from typing import Any

import pytest

from omnikit.checks.fleet_checks import RULES, equal, listed, tls

RULE = {rule.fact: rule for rule in RULES}
HASHES = ["sha256:" + letter * 64 for letter in "ab"]


def facts(name: str, *values: Any) -> dict[str, dict[str, Any]]:
    return {f"h{number}": {name: value} for number, value in enumerate(values)}


def states(found: dict[str, Any]) -> dict[str, str]:
    return {host: one["state"] for host, one in found.items()}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.name))
def test_equal_hosts_are_ok_and_the_odd_one_is_named(rule: Any) -> None:
    assert set(states(equal(facts(rule.fact, "1", "1", "1"), rule)).values()) == {"ok"}
    found = equal(facts(rule.fact, "1", "2", "1"), rule)
    bad = "failed" if rule.required else "warning"
    assert states(found) == {"h0": "ok", "h1": bad, "h2": "ok"}
    assert (found["h1"]["found"], found["h1"]["needed"]) == ("2", "1, as on h0, h2")
    assert found["h1"]["todo"]


def test_where_no_value_leads_all_hosts_are_at_fault() -> None:
    found = equal(facts("driver_version", "25.2.1", "24.1"), RULE["driver_version"])
    assert states(found) == {"h0": "failed", "h1": "failed"}
    assert found["h0"]["needed"] == "the same on all hosts, found 25.2.1 on h0; 24.1 on h1"


def test_a_host_that_does_not_know_is_left_out_and_one_alone_is_not_compared() -> None:
    assert equal(facts("driver_version", "1", None), RULE["driver_version"]) == {}
    found = equal(facts("driver_version", "1", None, "1"), RULE["driver_version"])
    assert list(found) == ["h0", "h2"]


def test_hashes_are_shown_by_their_beginning() -> None:
    found = equal(facts("image_id", *HASHES, HASHES[0]), RULE["image_id"])
    assert found["h1"]["found"] == "bbbbbbbbbbbb…"
    assert found["h1"]["needed"] == "aaaaaaaaaaaa…, as on h0, h2"
    found = equal(facts("manifest_sha256", "c" * 64, "c" * 64), RULE["manifest_sha256"])
    assert found["h0"]["found"] == "cccccccccccc…"


def test_tls_is_equal_on_every_device_of_every_host() -> None:
    off = {"0": "0", "1": "0"}
    assert set(states(tls(facts("tls", off, off))).values()) == {"ok"}
    found = tls(facts("tls", off, {"0": "0", "1": "1"}))
    assert states(found) == {"h0": "ok", "h1": "failed"}
    assert found["h1"]["found"] == "0 on device 0; 1 on device 1"
    assert found["h1"]["needed"] == "0 on every device of every host"
    assert states(tls(facts("tls", {"0": "1"}, {"0": "0"}))) == {"h0": "failed", "h1": "failed"}


def test_tls_differs_within_one_host_too() -> None:
    assert states(tls(facts("tls", {"0": "0", "1": "1", "2": "0"}))) == {"h0": "failed"}
    assert states(tls(facts("tls", {"0": "0", "1": "0"}))) == {"h0": "ok"}


def test_tls_may_come_as_one_value_for_a_host_or_not_at_all() -> None:
    assert states(tls(facts("tls", "off", "off", "on"))) == {
        "h0": "ok",
        "h1": "ok",
        "h2": "failed",
    }
    assert tls(facts("tls", None, {})) == {}


def test_many_names_are_shortened() -> None:
    assert listed(["a", "b", "c", "d"]) == "a, b, c, d"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c … (5)"
