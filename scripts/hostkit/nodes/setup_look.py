"""Whether this host's containers have the environment that their servers need. Changes nothing.

A container that runs as it is wanted is asked itself; for others one of the same image, with the
same mounts and devices, lives for that one question.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable

from hostkit.base import run
from hostkit.base.errors import InputError
from hostkit.base.run import Result
from hostkit.containers import containers, engines, image_look, inside
from hostkit.containers.containers import Spec

_REFUSED = 125  # exit status of docker run and podman run when they could not start a container


@dataclass(frozen=True)
class Problem:
    """asked: False when the question could not be put; who makes the container will hear why."""

    what: str
    todo: str
    asked: bool = True


def problems(specs: Iterable[Spec]) -> list[Problem]:
    """What is wrong with the environment in these containers. Raises what the engine raises."""
    found = []
    new: dict[tuple[str, str], Spec] = {}
    for spec in specs:
        if spec["profile"] is None:
            continue
        if _runs_as_wanted(spec):
            found += _ask(spec, f"container {spec['name']}", _in_it)
            continue
        key = (spec["image"], spec["profile"]["file"])
        if key not in new or spec["profile"]["library"]:  # the one that asks for more
            new[key] = spec
    for spec in new.values():
        found += _ask(spec, f"image {spec['image']}", _in_a_new_one)
    return found


def answer(spec: Spec, words: list[str]) -> Result:
    """What a command says in a container as it is wanted. Raises Refused where none can be had."""
    return (_in_it if _runs_as_wanted(spec) else _in_a_new_one)(spec, words)


def _runs_as_wanted(spec: Spec) -> bool:
    try:
        return containers.look(spec).action == "unchanged"
    except InputError:  # it is somebody else's
        return False


def _ask(spec: Spec, place: str, run_there: Callable[[Spec, list[str]], Result]) -> list[Problem]:
    profile = spec["profile"]
    try:
        inside.check_python(lambda words: run_there(spec, words), place, profile["python"], profile)
    except InputError as error:
        return [Problem(error.what, error.todo or "")]
    except Refused as refused:
        return [Problem(f"{place}: no container of it can be started: {refused}", "", asked=False)]
    except run.Outlasted:
        what = f"{place}: {profile['file']} has not come to its end in time."
        return [Problem(what, f"see what it waits for: bash -x {profile['file']}")]
    return []


class Refused(Exception):
    """The engine started no container."""


def _in_it(spec: Spec, words: list[str]) -> Result:
    return engines.find(spec["engine"]).ask("exec", spec["name"], *words, check=False)


def _in_a_new_one(spec: Spec, words: list[str]) -> Result:
    """A command in a container that is made for it and removed after it."""
    engine = engines.find(spec["engine"])
    image = image_look.find(engine, spec["image"])
    if image is None:
        raise Refused("the image is not on this host")
    # Docker makes a folder on the host of a mount that is not there.
    mounts = [mount for mount in spec["mounts"] if Path(mount.split(":")[0]).exists()]
    name = f"omnikit-look-{secrets.token_hex(6)}"
    made = containers.trial_words({**spec, "name": name, "mounts": mounts}, image.name, words)
    try:
        done = engine.ask(*made, check=False)
    finally:
        engine.ask("rm", "--force", name, check=False)
    if done.code == _REFUSED:
        raise Refused(done.tail)
    return done
