"""What is promised where several change the same hosts:

exactly one goes on. A lock is its owner's: no verb, stop and clean-up included, touches
a host that somebody else is changing, and the audit file outlives them all.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_site import ROOT, Site

pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua")]

VERBS = {
    "deploy": ("deploy.py", "--yes", "--set", "server.env.VERSION=other"),
    "rollback": ("rollback.py", "--yes"),
    "roll": ("roll_prefill.py", "--set", "server.env.VERSION=two"),
    "stop": ("stop.py",),
    "stop of one": ("stop.py", "--instance", "p0"),
    "clean-up": ("clean_up.py", "--yes", "--logs"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_host_that_somebody_else_changes_is_left_alone(site: Site, verb: str) -> None:
    if "two" not in site.releases():
        site.deploy("two")
    before, audit = site.versions(), site.audit()
    site.hold()
    held = site.lock.read_text()
    said = site.run(*VERBS[verb], code=2)
    assert "ann@bastion:/opt is changing this host: deploy of small" in said
    assert site.lock.read_text() == held
    assert (site.versions(), site.audit()) == (before, audit)
    site.lock.unlink()


def test_a_clean_up_leaves_the_audit(site: Site) -> None:
    before = site.audit()
    site.run("clean_up.py", "--yes", "--logs")
    after = site.audit()
    assert after[: len(before)] == before and after[-1] == ("clean-up of small", "ok")
    assert [path.name for path in site.work.iterdir()] == ["audit.jsonl"]


# Stands for a controller: the locks alone, of some hosts, as often as is asked for.
_CONTROLLER = """
import sys
from dataclasses import replace
from omnikit.config.config import load
from hostkit.base.errors import ToolkitError
from omnikit.runs import run
from omnikit.topology.topology import make_plan
config = load(sys.argv[1])
[one] = make_plan(config).hosts
hosts = [replace(one, name=f"h{n}", work_dir=place) for n, place in enumerate(sys.argv[2:])]
print("ready", flush=True)
while sys.stdin.readline():
    try:
        with run.hold(config, "deploy", hosts=hosts):
            print("has them", flush=True)
            sys.stdin.readline()
    except ToolkitError as error:
        print("refused", type(error).__name__, str(error).replace(chr(10), " "), flush=True)
        sys.stdin.readline()
    print("ready", flush=True)
"""


@pytest.mark.parametrize("number", [2, 5])
def test_of_many_that_begin_at_once_on_many_hosts_exactly_one_goes_on(
    tmp_path: Path, number: int
) -> None:
    """Each knows the hosts by names and in an order of its own, and some know not all of them."""
    chosen = random.Random(number)
    environment = str(ROOT / "tests" / "environments" / "breadth.yaml")
    started = []
    for one in range(number):
        folder = tmp_path / f"control{one}"
        folder.mkdir()
        places = [str(tmp_path / f"host{host}") for host in range(5)]
        chosen.shuffle(places)
        kept = places if one < 2 else sorted({*places[:3], str(tmp_path / "host0")})
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", _CONTROLLER, environment, *kept],
                cwd=ROOT / "scripts",
                env={**os.environ, "OMNIKIT_SITE": str(folder)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )

    def each() -> list[str]:
        return [one.stdout.readline().strip() for one in started if one.stdout]

    def go_on() -> None:
        for one in started:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()

    try:
        for _ in range(6):
            assert set(each()) == {"ready"}
            go_on()
            said = each()
            assert said.count("has them") == 1, said
            refused = [one for one in said if one != "has them"]
            assert all(one.startswith("refused Refused ") for one in refused), said
            assert all("is changing this host: deploy" in one for one in refused), said
            locks = [json.loads(path.read_text()) for path in tmp_path.glob("host*/deploy.lock")]
            assert len({one["run"] for one in locks}) == 1
            go_on()
    finally:
        for one in started:
            one.communicate(timeout=60)
    assert not list(tmp_path.glob("host*/deploy.lock"))


def test_two_deployments_at_once_of_two_control_folders_are_one(site: Site, tmp_path: Path) -> None:
    site.deploy("one")
    other = replace(site, env={"OMNIKIT_SITE": str(tmp_path)})
    told = ("deploy.py", "--yes", "--set")
    both = [site.start(*told, "server.env.VERSION=mine")]
    both.append(other.start(*told, "server.env.VERSION=other"))
    said = [one.communicate(timeout=400)[0] for one in both]
    codes = [one.returncode for one in both]
    assert sorted(codes) == [0, 2], said
    won = "mine" if codes[0] == 0 else "other"
    assert site.serves(won) and site.version_of("good.pyz") == won, said
    assert not site.lock.exists()
