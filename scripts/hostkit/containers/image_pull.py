"""A pull with mirrors, log-in and further attempts after faults of the network.

The log-in is kept in a private folder that is removed afterwards.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Optional, Union

from hostkit.base import health, run
from hostkit.base.errors import ActionError, InputError
from hostkit.base.faults import NETWORK, REFUSED, SPACE, Fault
from hostkit.base.log import say
from hostkit.containers import image_look
from hostkit.containers.engines import Engine, differ
from hostkit.containers.image_look import HUB, Found, parse
from hostkit.containers.image_output import Progress, read, watch

_CLEANED_S = 10.0  # for the engine to remove what it fetched of an image that did not fit


@dataclass(frozen=True)
class Got:
    """Where the image came from. note: why nobody was asked in the end, if so."""

    source: str
    digest: str = ""
    note: str = ""


@dataclass
class Pull:
    """One image to be pulled. env: of the image's own registry, with its log-in. answer_s: for a
    registry's first word.
    """

    engine: Engine
    image: str
    free_mib: float
    before: Optional[Found]
    place: Optional[Path]
    free_before: int
    platform: str = ""
    credentials: Optional[str] = None
    env: dict[str, str] = field(default_factory=dict)
    answer_s: float = math.inf
    begun: bool = False


def sources(image: str, mirrors: list[str]) -> list[str]:
    """The names to ask for, in order: the mirrors', then the image's own."""
    wanted = parse(image)
    return list(dict.fromkeys([*(wanted.at(mirror) for mirror in mirrors), image]))


def pull_argv(engine: Engine, source: str, platform: str) -> list[str]:
    """The command that pulls. platform: OS/ARCH; of an image for several this one is taken."""
    return engine.argv("pull", "--platform", platform, source)


def rename_argvs(engine: Engine, source: str, image: str) -> list[list[str]]:
    """The commands that give a mirror's image its own name. A digest cannot be given."""
    wanted = parse(image)
    if not wanted.digest:
        return [engine.argv("tag", source, image), engine.argv("rmi", source)]
    if wanted.tag:
        return [engine.argv("tag", source, f"{wanted.name}:{wanted.tag}")]
    return []


def plan_argvs(engine: Engine, parameters: dict[str, Any]) -> list[list[str]]:
    """All that a pull may run, in order, for --dry-run."""
    image = parameters["image"]
    user = (parameters["credentials"] or "").partition(":")[0]
    words = [engine.argv("image", "inspect", "--", image)]
    for source in sources(image, parameters["mirrors"]):
        if source == image and user:
            words.append(argv(engine, parse(image).registry, user))
        words.append(pull_argv(engine, source, parameters["platform"]))
        if source != image:
            words += rename_argvs(engine, source, image)
    return words


def fetch(
    engine: Engine, parameters: dict[str, Any], before: Optional[Found], platform: str
) -> Got:
    """Pull from the first source that gives it. before: what has its name on this host now."""
    image, attempts = parameters["image"], int(parameters["attempts"])
    place = image_look.folder(engine)
    free = image_look.free_mib(place) if place else 0
    pull = Pull(engine, image, parameters["free_mib"], before, place, free, platform)
    pull.credentials = parameters["credentials"]
    pull.answer_s = parameters.get("answer_s", math.inf)
    left = sources(image, parameters["mirrors"])
    refused: list[Fault] = []
    delay = float(parameters["delay_s"])
    with ExitStack() as stack:
        if pull.credentials:
            registry = parse(image).registry
            pull.env = stack.enter_context(private(engine, registry))
        for attempt in range(1, attempts + 1):
            cut: list[Fault] = []
            for source in list(left):
                found = _try(pull, source)
                if isinstance(found, Got):
                    return found
                if found.kind == NETWORK:
                    cut.append(found)
                else:
                    left.remove(source)
                    refused.append(found)
                if source != image:
                    say(f"{source}: {found.why}; asking the next registry")
            if before is not None and not pull.begun:
                return _as_it_is(image, _main([*cut, *refused], image))
            if not cut or (image not in left and _main(refused, image).final):
                raise _main(refused, image).error(image)
            if attempt == attempts:
                raise _given_up(image, [*refused, *cut], attempts)
            say(f"{cut[-1].source}: {cut[-1].why}: {_last(cut[-1].said)}")
            say(f"attempt {attempt + 1} of {attempts} in {delay:g} s")
            health.wait_until(lambda: False, delay, delay)
            delay *= 2
    raise AssertionError("unreachable")


def _try(pull: Pull, source: str) -> Union[Got, Fault]:
    """One attempt at one source."""
    engine, own = pull.engine, source == pull.image
    registry = parse(source).registry
    env = pull.env if own else None  # a mirror does not see the registry's password
    if own and pull.credentials:
        fault = log_in(engine, source, pull.credentials, pull.env, pull.answer_s)
        if fault is not None and fault.kind != NETWORK:
            raise fault.error(pull.image)
        if fault is not None:
            return fault
    known = image_look.find(engine, source)

    def on_begin() -> None:
        pull.begun = True
        if pull.before is not None:  # else it was looked at before
            image_look.check_images_space(engine, pull.free_mib, pull.image)

    say(f"pulling {source}")
    words, what = pull_argv(engine, source, pull.platform), f"pulling {source}"
    try:
        code, progress = watch(words, what, env=env, on_begin=on_begin, answer_s=pull.answer_s)
    except InputError as error:
        # A small image can be here before the engine has stopped: that is no failure.
        came = image_look.find(engine, source)
        if came is None or (known and known.id == came.id):
            raise
        say(f"{source} came before the engine could be stopped. {error.what}")
        code, progress = 0, Progress()
    said = "\n".join(progress.said)
    if code != 0:
        pull.begun = pull.begun or bool(progress.layers)
        engine.raise_unreachable(said)
        fault = read(said, source, engine=engine.kind, registry=registry, platform=pull.platform)
        if fault.kind == SPACE:
            raise space_error(pull.image, said, pull.place, pull.free_before)
        return fault
    came = image_look.find(engine, source)
    if came is not None and differ(came.platform, pull.platform):
        pull.begun = True  # also where all its layers were here: the registry was asked
        _put_back(engine, source, known, came)
        return _for_others(source, came, pull.platform)
    if progress.already:
        say(f"{progress.already} of {len(progress.layers)} layers were on this host already")
    if not own:
        for argv in rename_argvs(engine, source, pull.image):
            # A name that somebody gave before us stays.
            if not (known and argv[1] == "rmi"):
                engine.ask(*argv[1:])
    return Got(source, progress.digest)


def _for_others(source: str, came: Found, platform: str) -> Fault:
    why = f"the registry has this image only for {came.platform}, {platform} is needed"
    todo = "name an image that is built for it, in container.image"
    return Fault(REFUSED, source, why, todo, "what came of it was removed again", final=True)


def _put_back(engine: Engine, source: str, known: Optional[Found], came: Found) -> None:
    """Give a name back to the image that had it before; what came instead goes."""
    if known is None:
        engine.ask("rmi", source, check=False)
    elif known.id != came.id:
        engine.ask("tag", known.id, source)
        engine.ask("rmi", came.id, check=False)


def space_error(image: str, said: str, place: Optional[Path], free_before: int) -> ActionError:
    """The disk became full; what of the attempt is left there."""
    if place is None:
        return ActionError(f"no space is left on the disk for {image}.\n{said}")

    disk = place

    def left() -> int:
        return free_before - image_look.free_mib(disk)

    # The engine removes what it fetched after it has said that it failed.
    health.wait_until(lambda: left() <= 1, _CLEANED_S, 0.1)
    rest_mib = left()
    free = free_before - rest_mib
    rest = (
        f"{rest_mib} MiB of it are still there"
        if rest_mib > 1
        else "the engine has removed what it had fetched of it"
    )
    return ActionError(
        f"no space is left on the disk of {place} for {image}:"
        f" {free} MiB are free; {rest}.\n{said}",
        todo=f"make room: docker system df; docker image prune; df -h {place}",
    )


def _as_it_is(image: str, fault: Fault) -> Got:
    note = f"{fault.source} could not be asked: {fault.why}; the image that is here stays"
    say(f"{image}: {note}")
    return Got("this host", note=note)


def _given_up(image: str, faults: list[Fault], attempts: int) -> ActionError:
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    asked = "\n".join(f"{fault.source}: {fault.why}: {_last(fault.said)}" for fault in faults)
    todo = _main(faults, image).todo
    return ActionError(f"{image} could not be pulled in {times}.\n{asked}", todo=todo)


def _main(faults: list[Fault], image: str) -> Fault:
    """Of several faults, that of the image's own registry."""
    return next((fault for fault in faults if fault.source == image), faults[-1])


def _last(said: str) -> str:
    return (said.splitlines() or [""])[-1]


def argv(engine: Engine, registry: str, user: str) -> list[str]:
    """The command; the password goes to its standard input."""
    words = engine.argv("login", "--username", user, "--password-stdin")
    return words if registry == HUB and engine.kind == "docker" else [*words, registry]


def split(credentials: str) -> tuple[str, str]:
    """User and password. Raises InputError, without showing them, when they are not both there."""
    user, colon, password = credentials.strip().partition(":")
    if not (user and colon and password):
        raise InputError(
            "the registry's credentials are not USER:PASSWORD.",
            where="image.credentials",
            todo="write one line USER:PASSWORD into the file that image.credentials names",
        )
    return user, password


@contextmanager
def private(engine: Engine, registry: str) -> Iterator[dict[str, str]]:
    """Variables that let the engine keep a log-in in a folder of its own, while this holds."""
    with tempfile.TemporaryDirectory(prefix="omnikit-login-") as folder:  # mode 0700
        path = Path(folder) / "config.json"
        # With an entry in it, Docker does not look for a key ring to put the password into.
        text = json.dumps({"auths": {registry: {}}} if engine.kind == "docker" else {"auths": {}})
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(text)
        yield (
            {"DOCKER_CONFIG": folder}
            if engine.kind == "docker"
            else {"REGISTRY_AUTH_FILE": str(path)}
        )


def log_in(
    engine: Engine, image: str, credentials: str, env: dict[str, str], answer_s: float = math.inf
) -> Optional[Fault]:
    """Log in at an image's registry; what stands against it, or None."""
    user, password = split(credentials)
    registry = parse(image).registry
    words = argv(engine, registry, user)
    try:
        timeout = min(engine.timeout_s, answer_s)
        done = run.run(words, env=env, stdin=password, timeout=timeout, check=False)
    except run.Outlasted:
        if answer_s > engine.timeout_s:
            raise
        said = f"timed out: no answer within {answer_s:g} s"
        return read(said, image, engine=engine.kind, registry=registry)
    if done.code == 0:
        return None
    said = done.err + done.out
    engine.raise_unreachable(said)
    said = "\n".join(line for line in said.strip().splitlines() if password not in line)
    return read(said or "the log-in failed", image, engine=engine.kind, registry=registry)
