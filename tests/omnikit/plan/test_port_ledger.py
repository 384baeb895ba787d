"""Ports are claimed once on each machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostkit.base.errors import InputError
from omnikit.topology.ports import Claim, PortLedger


def claim(first: int, count: int = 1, purpose: str = "the API of p0") -> Claim:
    return Claim(first, count, purpose, "site.yaml:7: ports.api_base")


def test_a_port_is_had_once_on_a_machine_and_again_on_another() -> None:
    ledger = PortLedger(32768)
    assert ledger.claim("10.0.0.1", claim(9000, 16)) == 9000
    assert ledger.claim("10.0.0.2", claim(9000, 16)) == 9000
    assert ledger.claim("10.0.0.1", claim(9016)) == 9016


@pytest.mark.parametrize(
    ("first", "count", "port"), [(9000, 1, 9000), (8990, 11, 9000), (9015, 5, 9015)]
)
def test_a_port_used_twice_names_both_users_and_settings(first: int, count: int, port: int) -> None:
    ledger = PortLedger(32768)
    ledger.claim("10.0.0.1", claim(9000, 16))
    with pytest.raises(InputError) as caught:
        ledger.claim("10.0.0.1", Claim(first, count, "the proxy", "env.yaml:2: ports.proxy"))
    assert caught.value.what == (
        f"port {port} on 10.0.0.1 is used twice: by the API of p0 (site.yaml:7: ports.api_base)"
        " and by the proxy."
    )
    assert caught.value.where == "env.yaml:2: ports.proxy"


@pytest.mark.parametrize(
    ("first", "count", "what"),
    [
        (65530, 10, "needs port 65539, the highest is 65535"),
        (32760, 10, "needs port 32769, but from 32768 on the kernel hands ports out"),
    ],
)
def test_a_port_beyond_what_is_to_be_had_is_refused(first: int, count: int, what: str) -> None:
    with pytest.raises(InputError) as caught:
        PortLedger(32768).claim("10.0.0.1", claim(first, count))
    assert what in caught.value.what
    assert caught.value.where == "site.yaml:7: ports.api_base"


def test_the_next_free_run_begins_behind_what_is_in_the_way() -> None:
    ledger = PortLedger(32768)
    ledger.claim("a", claim(105, 2))
    ledger.claim("a", claim(100, 2))
    assert ledger.next_free("a", 100, 3, "x", "s") == 102
    assert ledger.next_free("a", 100, 1, "x", "s") == 107
    assert ledger.next_free("b", 100, 1, "x", "s") == 100


@given(st.lists(st.tuples(st.integers(100, 140), st.integers(1, 5)), max_size=20))
def test_no_two_runs_ever_overlap(wanted: list[tuple[int, int]]) -> None:
    ledger = PortLedger(32768)
    taken: set[int] = set()
    for base, count in wanted:
        first = ledger.next_free("a", base, count, "x", "s")
        run = set(range(first, first + count))
        assert first >= base
        assert not run & taken
        taken |= run
