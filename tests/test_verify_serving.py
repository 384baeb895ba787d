"""The command on a whole small deployment: what it prints, and what a deploy does with it.

What it finds is in tests/omnikit/deploy/test_truth.py and test_alike.py; real engines are asked in
tests/adversarial/proxy/test_same_as_colocated.py.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from small_site import Site, site

__all__ = ["site"]
pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua")]


def verified(site: Site, *words: str, code: int = 0) -> dict[str, Any]:
    said = site.run("verify_serving.py", "--json", *words, code=code)
    found: dict[str, Any] = json.loads(said[said.index("{") : said.rindex("}") + 1])
    return found


def test_what_runs_is_verified_and_shown(site: Site) -> None:
    version = ("--set", "server.env.VERSION=one")
    found = verified(site, *version)
    assert found["passed"] and not found["causes"]
    names = {check["name"] for check in found["checks"]}
    assert {"p0 > d0", "p1 > d0", "d0 alone", "proxy", "weights", "settings"} <= names
    said = site.run("verify_serving.py", *version, "--short")
    assert "p1 > d0" in said and ", 0 failed" in said


def test_a_server_that_runs_with_other_sizes_than_planned_is_named(site: Site) -> None:
    words = (
        "--set",
        "server.env.VERSION=one",
        "--set",
        "roles.prefill.server.args.tensor-parallel-size=2",
    )
    found = verified(site, *words, code=1)
    [wrong] = [check for check in found["checks"] if not check["passed"]]
    assert wrong["name"] == "settings"
    assert "p0 runs without --tensor-parallel-size, planned is 2" in wrong["found"]


def test_a_deploy_does_it_before_it_calls_itself_done(site: Site) -> None:
    said = site.deploy("one")
    assert "ok  servers alike" in said and "ok  answers" in said and site.serves("one")
    said = site.deploy("one", "--set", "verify_serving.on_change=alike")
    assert "ok  servers alike" in said and "ok  answers" not in said
    said = site.deploy("one", "--set", "verify_serving.on_change=none")
    assert "servers alike" not in said and "several prompts" in said
