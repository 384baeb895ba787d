"""What is promised where a command is killed, at any moment, with or without what it started:

the next deploy finishes it. Afterwards the right version runs, fails back to the right one, rolls
back to the right one, and no lock is left. KILLED_MOMENTS says how many moments (one is a round of
a kill, a deploy, a deploy that fails and a rollback), KILLED_SEED which.
"""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import pytest
from docker_host import wait_for
from small_site import Site, make

MOMENTS = int(os.environ.get("KILLED_MOMENTS", "8"))
SEED = int(os.environ.get("KILLED_SEED", "7"))
FAILS = ("--set", "roles.decode.server.env.STAND_IN_FAILS=out of luck")
VERBS = ("deploy", "rollback", "roll", "stop")
WAYS = ("alone", "with all its children")

pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua")]


def moments() -> list[tuple[int, str, str, float]]:
    """Every verb and way in turn; when, as a part of the verb's whole time."""
    chosen = random.Random(SEED)
    cases = []
    for number in range(MOMENTS):
        verb = VERBS[number % len(VERBS)]
        way = WAYS[number // len(VERBS) % len(WAYS)]
        cases.append((number, verb, way, chosen.random()))
    return cases


@dataclass
class Case:
    """A deployment, and how long its verbs take."""

    site: Site
    took: dict[str, float]

    def command(self, verb: str, version: str) -> tuple[str, ...]:
        told = ("--set", f"server.env.VERSION={version}")
        if verb == "deploy":
            return ("deploy.py", "--yes", *told)
        if verb == "rollback":
            return ("rollback.py", "--yes")
        if verb == "roll":  # the prefill servers alone get something new
            now = ("--set", f"server.env.VERSION={self.site.releases()[-1]}")
            return ("roll_prefill.py", *now, "--set", "roles.prefill.server.env.ROLLED=1")
        return ("stop.py",)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    made = make(tmp_path_factory.mktemp("killed"))
    try:
        began = time.monotonic()
        made.deploy("one")
        took = time.monotonic() - began
        share = {"deploy": 1.0, "rollback": 1.0, "roll": 1.6, "stop": 0.6}
        yield Case(made, took={verb: took * share[verb] for verb in VERBS})
    finally:
        made.forget()


def _descendants(pid: int) -> list[int]:
    """All processes below one, and of their sessions, but no server: those have a supervisor."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, todo = [], [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _kill(case: Case, words: tuple[str, ...], way: str, after: float) -> None:
    """Start a command, and kill it some seconds later, however far it is by then."""
    started = case.site.start(*words)
    deadline = time.monotonic() + after
    # The moment is what is random here: there is no condition to wait for.
    wait_for(lambda: started.poll() is not None or time.monotonic() > deadline, "the moment", 600)
    below = _descendants(started.pid) if way != "alone" else []
    started.kill()
    for pid in below:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if started.stdout is not None:
        started.stdout.close()
    started.wait(timeout=60)


@pytest.mark.parametrize(
    ("number", "verb", "way", "part"),
    [pytest.param(*one, id=f"{one[0]}-{one[1]}-{one[2]}") for one in moments()],
)
def test_the_next_deploy_finishes_it_and_every_version_is_the_right_one(
    case: Case, number: int, verb: str, way: str, part: float
) -> None:
    site, before = case.site, case.site.releases()
    version = f"v{number}"
    after = part * case.took[verb] * 1.1
    _kill(case, case.command(verb, f"killed{number}"), way, after)
    said = f"{verb} killed {way} after {after:.2f} s ({part:.2f} of {case.took[verb]:.1f} s)"

    site.deploy(version)
    kept = site.releases()
    assert site.serves(version), f"{said}: {site.versions()}"
    assert kept[-1] == version and kept[-2] != version, f"{said}: {before}, then {kept}"
    assert not site.lock.exists(), said
    assert site.version_of("good.pyz") == version, said
    assert site.audit()[-1] == ("deploy of small", "ok"), said

    failed = site.deploy(version, *FAILS, code=1)
    assert "out of luck" in failed, f"{said}: {failed}"
    assert site.serves(version), f"{said}, then a failure: {site.versions()}\n{failed}"
    assert site.version_of("good.pyz") == version, said
    assert site.releases() == kept, said
    assert not site.lock.exists(), said

    site.run("rollback.py", "--yes")
    assert site.serves(kept[-2]), f"{said}, then back to {kept[-2]}: {site.versions()}"
    assert not site.lock.exists(), said
    assert site.version_of("good.pyz") == kept[-2], said
    assert site.audit()[-1][1] == "ok", said
    assert not list((site.control / "begun").glob("*")), said
