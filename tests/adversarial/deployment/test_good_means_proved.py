"""What is promised of "it ended well":

it is said, and written down, only after real requests were answered. A deployment that starts but
does not serve has failed, and what ran before is brought back.
"""

from __future__ import annotations

import json

import pytest
from small_site import Site

pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua")]

# Servers that start and are healthy; their answers are of no use.
DUMB = ("--set", "server.env.STAND_IN_DUMB=1")


def recorded(site: Site) -> tuple[list[str], str, list[tuple[str, str]]]:
    good = [one for one in site.audit() if one[1] == "ok"]
    return site.releases(), site.version_of("good.pyz"), good


def test_servers_that_start_but_do_not_answer_are_a_failed_deployment(site: Site) -> None:
    before = recorded(site)
    said = site.deploy("two", *DUMB, code=1)
    assert "FAILED" in said and "bringing back what ran before: p0, p1, d0" in said
    assert site.serves("one")
    assert recorded(site) == before
    assert site.audit()[-1] == ("deploy of small", "failed")
    here = (site.control / "audit.jsonl").read_text().splitlines()
    assert json.loads(here[-1])["result"].startswith("failed: ")
    assert not site.lock.exists()


def test_a_rolling_restart_that_does_not_serve_afterwards_is_none_that_ended_well(
    site: Site,
) -> None:
    before = recorded(site)
    told = ("--set", "server.env.VERSION=one", "--set", "roles.prefill.server.env.STAND_IN_DUMB=1")
    said = site.run("roll_prefill.py", *told, code=1)
    assert "do not serve as they should" in said
    assert recorded(site) == before
    assert not site.lock.exists()
    assert "to do: restart p0, restart p1" in site.deploy("one")  # which mends it
    assert site.serves("one")


def test_a_failure_after_one_that_was_kept_brings_back_what_was_proved(site: Site) -> None:
    site.deploy("two", *DUMB, "--keep", code=1)
    assert site.versions()["p0"] == "two"  # to be looked at
    assert site.version_of("good.pyz") == "one" and not site.lock.exists()
    site.deploy("three", *DUMB, code=1)
    assert site.serves("one")


def test_a_part_of_a_deployment_is_no_proof_of_the_whole(site: Site) -> None:
    site.deploy("four", "--tags", "run_server")
    assert site.version_of("good.pyz") == "one" and site.releases() == ["one"]
    site.deploy("four")  # nothing is to be started: now it is proved
    assert site.version_of("good.pyz") == "four" and site.releases() == ["one", "four"]
    assert "nothing to change" in site.deploy("four")
