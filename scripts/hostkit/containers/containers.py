"""Containers of this host: look, compare with what is wanted, act, report.

spec is data (see SPEC_KEYS): what a container was made with stands in its label, so a difference
can be named. A container without our label belongs to somebody else and is left alone.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError, ToolkitError
from hostkit.base.log import say
from hostkit.containers import engines, image_look, profile

Spec = dict[str, Any]
# How to reach it and work in it; the rest is what it is made of.
_REACHED_BY = ("name", "engine", "grace_s", "profile")
_MADE_OF = (
    *("owner", "image", "shm_size", "network", "privileged", "user", "workdir", "entrypoint"),
    *("interactive", "init", "devices", "mounts", "env", "args"),
)
SPEC_KEYS = (*_REACHED_BY, *_MADE_OF)
LABEL = "omnikit.spec"
OWNER = "omnikit.owner"


@dataclass(frozen=True)
class Look:
    """action: unchanged, start (it is stopped), create or recreate. differences: why, as text."""

    action: str
    differences: tuple[str, ...] = ()


def create_words(spec: Spec, image: Optional[str] = None) -> list[str]:
    """The words of the command that makes and starts the container, without the engine's name.

    image: what the host calls the image, where that is another name.
    """
    words = ["run", "--name", spec["name"]]
    words += ["-it"] if spec["interactive"] else []
    words += ["-d", *_surroundings(spec)]
    words += ["--label", f"{OWNER}={spec['owner']}"]
    words += ["--label", f"{LABEL}={_as_label(spec)}"]
    return [*words, *spec["args"], image or spec["image"]]


def trial_words(spec: Spec, image: str, words: list[str]) -> list[str]:
    """The words that run one command, in the foreground, where such a container would run it."""
    around = _surroundings({**spec, "entrypoint": words[0]})
    return ["run", "--name", spec["name"], *around, *spec["args"], image, *words[1:]]


def _surroundings(spec: Spec) -> list[str]:
    words = [f"--shm-size={spec['shm_size']}", f"--network={spec['network']}"]
    words += ["--privileged=true"] if spec["privileged"] else []
    words += ["--init"] if spec["init"] else []
    words += ["-u", _user(spec), "-w", spec["workdir"]]
    words += [f"--device={device}" for device in spec["devices"]]
    words += [f"--entrypoint={spec['entrypoint']}"]
    for mount in spec["mounts"]:
        words += ["-v", mount]
    for name, value in {**_home(spec), **spec["env"]}.items():
        words += ["-e", f"{name}={value}"]
    return words


def _user(spec: Spec) -> str:
    return spec["user"] or f"{os.getuid()}:{os.getgid()}"


def _home(spec: Spec) -> dict[str, str]:
    """A user that the image does not know still has a name and a place to write."""
    return {} if spec["user"] else {"HOME": "/tmp", "USER": "omnikit"}


def _as_label(spec: Spec) -> str:
    made_of = {key: spec[key] for key in _MADE_OF}
    return json.dumps({**made_of, "user": _user(spec)}, sort_keys=True)


def look(spec: Spec, replace: bool = False) -> Look:
    """Compare the container with its spec. Raises InputError when another owns the name."""
    engine = engines.find(spec["engine"])
    there = engine.inspect("container", spec["name"])
    if there is None:
        return Look("create")
    _check_owner(there, spec, replace)
    before = json.loads((there["Config"].get("Labels") or {}).get(LABEL) or "{}")
    after = json.loads(_as_label(spec))
    found = [
        f"{key}: {_short(before.get(key), after[key])} -> {_short(after[key], before.get(key))}"
        for key in _MADE_OF
        if key in after and before.get(key) != after[key]
    ]
    image = image_look.find(engine, spec["image"])
    runs = image_look.bare(there["Image"])
    if image is not None and image.id != runs and not found:
        found.append(f"image {spec['image']}: {runs[:12]} -> {image.id[:12]}")
    if found:
        return Look("recreate", tuple(found))
    return Look("unchanged" if there["State"]["Running"] else "start")


def _short(value: Any, other: Any) -> str:
    """A value; of two lists what the other has not."""
    if isinstance(value, list) and isinstance(other, list):
        value = [item for item in value if item not in other]
    return json.dumps(value)


def _check_owner(there: dict[str, Any], spec: Spec, replace: bool) -> None:
    if replace:
        return
    owner = (there["Config"].get("Labels") or {}).get(OWNER)
    if owner and spec["owner"] in (None, owner):
        return
    whose = f"belongs to {owner}" if owner else "was not made by this toolkit"
    raise InputError(
        f"the container {spec['name']} {whose}; it is left alone.",
        todo="choose another name (setting container.prefix), or replace it:"
        f" scripts/start_container.py --replace {spec['image']} {spec['name']}",
    )


def problems(spec: Spec, made_later: Sequence[str] = ()) -> list[str]:
    """What stands against making the container: image, devices or mounts that are not there.

    made_later: folders that are mounted and that come before the container does.
    """
    engine = engines.find(spec["engine"])
    found = []
    image, runs = image_look.find(engine, spec["image"]), engine.platform()
    if image is None:
        found.append(
            f"the image {spec['image']} is not on this host."
            " What to do: invoke pull-image, or scripts/pull_image.py " + spec["image"]
        )
    elif engines.differ(image.platform, runs):
        found.append(
            f"the image {spec['image']} is for {image.platform}, {engine.kind} on this host runs"
            f" images for {runs}. What to do: invoke pull-image, which takes the right"
            " one where the registry has it; or name one that is built for it: container.image"
        )
    for device in spec["devices"]:
        if not Path(device.split(":")[0]).exists():
            found.append(
                f"there is no device {device.split(':')[0]}."
                " What to do: check the driver (npu-smi info), or change container.devices"
            )
    for mount in spec["mounts"]:
        source = mount.split(":")[0]
        if source not in made_later and not Path(source).exists():
            found.append(
                f"there is no {source} to mount."
                " What to do: install or make it, or change container.mounts"
            )
    return found


def ensure(parameters: dict[str, Any]) -> dict[str, Any]:
    """Bring a container to its spec: unchanged, started or recreated.

    parameters: {"spec": …, "replace": whether a stranger of that name may be removed}.
    Raises InputError before anything is changed, ActionError when the engine refuses; a container
    that was made but cannot start is removed again.
    """
    spec, replace = parameters["spec"], bool(parameters.get("replace"))
    found = look(spec, replace)
    result = {"name": spec["name"], "differences": list(found.differences)}
    if found.action == "unchanged":
        return {**result, "action": "unchanged", "changed": False}
    engine = engines.find(spec["engine"])
    if found.action == "start":
        engine.ask("start", spec["name"])
        return {**result, "action": "started", "changed": True}
    against = problems(spec)
    if against:
        raise InputError("\n  ".join(["nothing was changed, because:", *against]))
    for difference in found.differences:
        say(f"{spec['name']}: {difference}")
    if found.action == "recreate":
        _remove(engine, spec["name"], spec["grace_s"])
    _create(engine, spec)
    action = "recreated" if found.action == "recreate" else "started"
    return {**result, "action": action, "changed": True}


def _create(engine: engines.Engine, spec: Spec) -> None:
    try:
        image = image_look.find(engine, spec["image"])
        made = engine.ask(*create_words(spec, image.name if image else None), check=False)
        if made.code != 0:  # the command itself may hold what is nobody's business
            raise ActionError(f"the container {spec['name']} cannot be started:\n{made.tail}")
        there = engine.inspect("container", spec["name"])
        if there is None or not there["State"]["Running"]:
            raise ActionError(
                f"the container {spec['name']} ended at once:"
                f" {engine.ask('logs', '--tail', '5', spec['name'], check=False).tail}",
                todo=f"check container.entrypoint ({spec['entrypoint']}) and container.interactive",
            )
    except ToolkitError:
        # Docker keeps a container that it could not start; ours must not stay half-made.
        half = engine.inspect("container", spec["name"])
        if half and (half["Config"].get("Labels") or {}).get(LABEL) == _as_label(spec):
            engine.ask("rm", "--force", spec["name"], check=False)
        raise


def stop(parameters: dict[str, Any]) -> dict[str, Any]:
    """Stop a container of ours; what is in it stays.

    parameters: {"spec": …}; its owner None: whichever of our environments made it.
    """
    return _end(parameters, remove=False)


def remove(parameters: dict[str, Any]) -> dict[str, Any]:
    """Stop and remove a container of ours. parameters: {"spec": …, "replace": also a stranger}."""
    return _end(parameters, remove=True)


def _end(parameters: dict[str, Any], *, remove: bool) -> dict[str, Any]:
    spec = parameters["spec"]
    engine = engines.find(spec["engine"])
    there = engine.inspect("container", spec["name"])
    result = {"name": spec["name"], "action": "unchanged", "changed": False}
    if there is None:
        return {**result, "action": "unchanged (there is none)"}
    if not (remove or there["State"]["Running"]):
        return result
    _check_owner(there, spec, bool(parameters.get("replace")))
    if remove:
        _remove(engine, spec["name"], spec["grace_s"])
        return {**result, "action": "removed", "changed": True}
    _stop(engine, spec["name"], spec["grace_s"])
    return {**result, "action": "stopped", "changed": True}


def _stop(engine: engines.Engine, name: str, grace_s: float) -> None:
    done = run.run(
        engine.argv("stop", "--time", str(round(grace_s)), name),
        check=False,
        timeout=engine.timeout_s + grace_s,
    )
    if done.code != 0:
        raise ActionError(f"the container {name} could not be stopped:\n{done.tail}")


def _remove(engine: engines.Engine, name: str, grace_s: float) -> None:
    _stop(engine, name, grace_s)
    engine.ask("rm", "--force", name)


def exec_words(spec: Spec, words: list[str]) -> list[str]:
    """A command in the container, in the environment that its profile sets up."""
    program = engines.find(spec["engine"]).program
    place = f"container {spec['name']}"
    return [program, "exec", spec["name"], *profile.words(spec["profile"], place, words)]


def launch_words(spec: Spec, words: list[str], log: str, mark: str) -> list[str]:
    """A supervisor in the container, in the background, its output in a file. mark: a variable of
    its environment, NAME=VALUE, by which it is known.

    What it starts loads the profile itself, once; it needs none, if its Python is there without.
    """
    program, shell, load = engines.find(spec["engine"]).program, spec["entrypoint"], ""
    if spec["profile"]:
        text = profile.loading({**spec["profile"], "library": None}, f"container {spec['name']}")
        shell, load = "bash", f'command -v -- "$1" >/dev/null || {{\n{text}}}\n'
    # The words come as arguments: nothing of them is shell text.
    text = f'exec >>"$0" 2>&1 </dev/null\n{load}exec "$@"'
    return [program, "exec", "-d", "-e", mark, spec["name"], shell, "-c", text, log, *words]
