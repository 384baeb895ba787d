"""Builds an image on this machine with Docker or Podman, when its inputs are not the last time's.

The image carries a fingerprint of its inputs as a label: the next run compares it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, ContextManager, Mapping, Optional

from hostkit.base import records, run
from hostkit.base.errors import ActionError, InputError
from hostkit.base.faults import SPACE
from hostkit.containers import engines, image_look, images
from hostkit.containers import image_pull as containers_image_pull
from hostkit.containers.engines import Engine
from hostkit.containers.image_output import read
from hostkit.files import regular
from hostkit.source import wheel_files
from omnikit.config.config import Config
from omnikit.config.layers import PROJECT, shown_path
from omnikit.engine.progress import Progress, Say
from omnikit.images import pull, recipes
from omnikit.images.recipes import PYTHON, Asked, Recipe, needed
from omnikit.topology.topology import make_plan

# What is sent to the engine for a build: exactly the recipe's files. And their fingerprint.


def fingerprint(recipe: Recipe, base_id: str, machine: str) -> str:
    """A fingerprint of all that decides what the image will be.

    Of wheels that are fetched their pins count, so that it can be told without fetching them.
    """
    made_of = {
        "files": {
            name: regular.sha256(path)
            for name, path in recipe.files.items()
            if name not in recipe.tools
        },
        "pins": {name: entry.text for name, entry in needed(recipe.pins).items()},
        "wheels": {path.name: regular.sha256(path) for path in recipe.wheels},
        "args": dict(recipe.args),
        "labels": dict(recipe.labels),
        "base": base_id,
        "for": [PYTHON, machine],
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def write(folder: Path, recipe: Recipe, fetched: Mapping[str, Path]) -> None:
    """Make the build context anew. Wheels are linked, not copied, where that is possible."""
    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    for name, path in recipe.files.items():
        there = beside / name
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there)
        there.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
    wheels = [*fetched.values(), *recipe.wheels]
    if wheels:
        (beside / "wheels").mkdir()
    for path in wheels:
        _link(path, beside / "wheels" / path.name)
    for place in (beside, *(path for path in beside.rglob("*") if path.is_dir())):
        place.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)


def locked(folder: Path, name: str) -> ContextManager[None]:
    """Keep two builds of one image apart; the kernel drops the lock when this process dies."""
    todo = "wait until it has ended, then run this again"
    what = f"a build of the image {name}"
    return records.locked(folder / f"{name}.lock", what, todo=todo, kind=InputError)


def _link(path: Path, there: Path) -> None:
    try:
        os.link(path, there)
    except OSError:  # another file system, or one without links
        shutil.copy(path, there)


# What an engine says while it builds: the step it is at, and what its failure means.
#
# Understands Docker's two builders and Podman.

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STEP = re.compile(
    r"(?:\[\d+/\d+\] )?(?:Step|STEP) (?P<number>\d+)/(?P<of>\d+)\s*: (?P<what>.*)"
    r"|#\d+ \[(?:[\w.-]+ )*(?P<kit>\d+)/(?P<kit_of>\d+)\] (?P<kit_what>.*)"
)
_KIT_PREFIX = re.compile(r"#\d+ (?:[\d.]+ )?")
_NO_PACKAGES = re.compile(
    r"Temporary failure resolving|Could not resolve|Could not connect to|Unable to connect to"
    r"|Failed to fetch|Unable to fetch some archives|Connection failed"
)
_LINES = 12  # of the engine's last words in an error
_WIDTH = 80


class BuildOutput(Progress):
    """Says each step as it begins, and every few seconds the last line of a long one."""

    def __init__(self, say: Say, interval_s: float, name: str) -> None:
        super().__init__(say, interval_s, name)
        self.at = ""
        self._heard_at = 0.0

    def heard(self, line: str) -> None:
        """A line of the engine's output."""
        text = _COLOUR.sub("", line).strip()
        step = _STEP.match(text)
        if step:
            number, of = step["number"] or step["kit"], step["of"] or step["kit_of"]
            at = f"step {number} of {of}: {_short(step['what'] or step['kit_what'])}"
            if at != self.at:
                self.at = at
                self.step(at)
            return
        text = _KIT_PREFIX.sub("", text, count=1)
        if text:
            self.lines = [*self.lines, text][-200:]
            self._heard_at = time.monotonic()
            self.doing(_short(text))

    def _show(self, count: Optional[Callable[[], str]] = None) -> None:
        """What was said last may be long over: then the step tells more."""
        if time.monotonic() - self._heard_at >= self._interval_s:
            self._doing = self.at or self._doing
        super()._show(count)


def _short(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= _WIDTH else f"{one_line[:_WIDTH]}…"


def failure(output: BuildOutput, engine: str, place: Optional[str]) -> ActionError:
    """One error with the step that failed, what the engine said last, and what to do."""
    said = "\n".join(f"  {line}" for line in output.lines[-_LINES:])
    at = f"at {output.at}" if output.at else "before the first step"
    text = "\n".join(output.lines)
    if read(text, "", engine=engine, registry="").kind == SPACE:
        return ActionError(
            f"the disk is full; the build ended {at}. What it had made was removed.\n{said}",
            where=place,
            todo=f"make room: {engine} system df; {engine} image prune; then run this again",
        )
    if _NO_PACKAGES.search(text):
        return ActionError(
            f"the build ended {at}: Debian's packages cannot be fetched.\n{said}",
            todo="check the network and http_proxy, or name another mirror:"
            " --build-arg APT_MIRROR=http://HOST/debian",
        )
    if "exec format error" in text.lower():
        return ActionError(
            f"the build ended {at}: this machine cannot run programs of the image's architecture."
            f"\n{said}",
            todo="build it on a host of that architecture, or let this machine emulate it: apt-get"
            " install qemu-user-static binfmt-support",
        )
    return ActionError(
        f"the build ended {at}.\n{said}",
        todo="mend that, then run this again: steps that were done are kept",
    )


WORK = PROJECT / "build" / "image"
INPUTS, STAGE = "omnikit.inputs", "omnikit.stage"
# In the environment only: an address may hold a password. Engines know these without an ARG.
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_SAY_S = 5.0  # between two lines of progress

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """result: unchanged, built or would be built. size: bytes. commands: of a dry run."""

    image: str
    result: str
    inputs: str
    base: Optional[str]
    id: str = ""
    size: int = 0
    commands: tuple[str, ...] = ()


def ensure(config: Config, tell: Tell) -> str:
    """Have the containers' image, built from container.build: "unchanged" or "built"."""
    given = config.settings.container.build_args
    args = {name: str(value) for name, value in given.items() if value is not None}
    return build(config, Asked(args=args), tell).result


def build(config: Config, asked: Asked, tell: Tell, *, dry_run: bool = False) -> Built:
    """Build an image if it is missing or its inputs changed.

    Raises InputError before anything is changed (no engine, no space, a part is missing), and
    ActionError when fetching or building fails.
    """
    settings = config.settings
    recipe = recipes.recipe(config, asked)
    engine = engines.find(settings.container.engine)
    engine.version()  # a daemon that does not run is said before minutes of fetching
    platform = _platform(config, engine, recipe, tell, dry_run=dry_run)
    target = recipes.For(recipes.PYTHON, engines.machine(platform))
    wheel_files.check_fit(recipe.wheels, "" if "$" in platform else target.machine)
    with locked(WORK, recipe.name):
        if not dry_run:
            _ensure_base(config, engine, recipe, platform)
        base = engine.inspect("image", recipe.base) if recipe.base else None
        digest = fingerprint(recipe, str(base["Id"]) if base else "", target.machine)
        former = engine.inspect("image", recipe.tag)
        if former and _label(former, INPUTS) == digest and not _other(former, platform):
            return _built(recipe, "unchanged", digest, former)
        if dry_run:
            return _would(config, engine, recipe, digest, platform, target)
        if former:
            tell(f"{recipe.tag}: {_why(former)}")
        _check_space(config, engine, recipe, target)
        progress = Progress(tell, _SAY_S, recipe.name)
        pins, wheels = recipes.needed(recipe.pins), WORK / _wheels_name(recipe)
        index = settings.engine.torch_index
        fetched = recipes.fetch(wheels, pins, target, index, progress)
        context = context_folder(recipe)
        write(context, recipe, fetched)
        argv = build_argv(engine, recipe, digest, context, platform)
        _run(engine, argv, recipe, tell)
        image = _made(engine, recipe, digest)
        if _other(image, platform):
            # Engines reuse a step of an earlier build, whichever platform that was for.
            tell(f"{recipe.tag}: steps of another platform were reused; once more without")
            _run(engine, [*argv[:-1], "--no-cache", argv[-1]], recipe, tell)
            image = _made(engine, recipe, digest)
        if _other(image, platform):
            raise ActionError(
                f"{recipe.tag} was built for {image_look.platform(image)}, {platform} is needed.",
                todo=f"build it on a host of that architecture, from a base for {platform}",
            )
    if former:
        _remove_former(engine, str(former["Id"]), recipe.tag, tell)
    tell(f"{recipe.name}: built {recipe.tag}, {int(image['Size']) >> 20} MiB")
    return _built(recipe, "built", digest, image)


def _platform(config: Config, engine: Engine, recipe: Recipe, tell: Tell, *, dry_run: bool) -> str:
    """What the image must be for: as it is set, else as the hosts say that will run it.

    Where they cannot be asked it is for this machine: without emulation it can build no other.
    """
    given = config.settings.image.platform
    plan = make_plan(config) if recipe.for_hosts and not given else None
    away = [h.name for h in plan.hosts if h.settings.connection != "local"] if plan else []
    if plan is None or not away:
        return engines.normal(given or "") or engine.platform()
    if dry_run:
        return pull.shown(config, plan)
    try:
        return pull.of_hosts(config, plan, away)
    except pull.Silent as error:
        tell(f"{recipe.name}: for {engine.platform()}, as this machine is; {error}")
        return engine.platform()


def _other(image: dict[str, Any], platform: str) -> bool:
    return engines.differ(image_look.platform(image), platform)


def _made(engine: Engine, recipe: Recipe, digest: str) -> dict[str, Any]:
    """The image that was built. Raises ActionError when it is not there."""
    image = engine.inspect("image", recipe.tag)
    if image is None or _label(image, INPUTS) != digest:
        raise ActionError(
            f"the engine said that it built {recipe.tag}, but there is no such image.",
            todo=f"look: {engine.kind} image ls",
        )
    return image


def build_argv(
    engine: Engine, recipe: Recipe, digest: str, context: Path, platform: str
) -> list[str]:
    """The command that builds. The network is the host's: packages of the system come over it."""
    labels = {
        "org.opencontainers.image.title": recipe.name,
        **recipe.labels,
        "org.opencontainers.image.base.name": recipe.base or "",
        "omnikit.image": recipe.name,
        INPUTS: digest,
    }
    words = ["build", "--platform", platform, "--network=host", "--force-rm", "--tag", recipe.tag]
    for name, value in labels.items():
        words += ["--label", f"{name}={value}"] if value else []
    for name, value in recipe.args.items():
        words += ["--build-arg", f"{name}={value}"]
    for name in _PROXIES:
        words += ["--build-arg", name] if os.environ.get(name) else []
    return engine.argv(*words, str(context))


def context_folder(recipe: Recipe) -> Path:
    """Where the build context is made; it stays, for who wants to build by hand."""
    return WORK / f"context-{recipe.name}"


def _wheels_name(recipe: Recipe) -> str:
    return f"wheels-{'cpu' if recipe.name == 'cpu-engine' else recipe.name}"


def _would(
    config: Config,
    engine: Engine,
    recipe: Recipe,
    digest: str,
    platform: str,
    target: recipes.For,
) -> Built:
    pins, wheels = recipes.needed(recipe.pins), WORK / _wheels_name(recipe)
    steps = recipes.steps(wheels, pins, target, config.settings.engine.torch_index)
    commands = [list(step.argv) for step in steps]
    commands.append(build_argv(engine, recipe, digest, context_folder(recipe), platform))
    base = engine.inspect("image", recipe.base) if recipe.base else None
    if recipe.base and (base is None or _other(base, platform)):
        commands.insert(0, containers_image_pull.pull_argv(engine, recipe.base, platform))
    return Built(
        recipe.tag,
        "would be built",
        digest,
        recipe.base,
        commands=tuple(pull.show(words, platform) for words in commands),
    )


def _ensure_base(config: Config, engine: Engine, recipe: Recipe, platform: str) -> None:
    """The base image is here before its id is needed: a pull between two builds changes nothing."""
    base = engine.inspect("image", recipe.base) if recipe.base else None
    if recipe.base is None or (base is not None and not _other(base, platform)):
        return
    try:
        images.pull({**pull.here(config, recipe.base), "platform": platform})
    except ActionError as error:
        there = f"here only for {image_look.platform(base)}" if base else "not here"
        raise ActionError(
            f"the base image {recipe.base} is {there} and cannot be pulled for {platform}.\n"
            f"  {error.what}",
            todo=f"name one that is here: --base IMAGE (setting container.build_base); or load it:"
            f" {engine.kind} load --input FILE",
        ) from error


def _check_space(config: Config, engine: Engine, recipe: Recipe, target: recipes.For) -> None:
    """Room where images live, and here for wheels that are still to be fetched."""
    settings = config.settings
    image_look.check_images_space(engine, settings.image.free_mib, recipe.tag)
    pins = recipes.needed(recipe.pins)
    if len(recipes.found(WORK / _wheels_name(recipe), pins, target)) < len(pins):
        needed = settings.engine.install_disk_mib
        free = image_look.free_mib(WORK)
        if free < needed:
            raise InputError(
                f"has {free} MiB free, wheels for the image may take {needed} MiB"
                " (setting engine.install_disk_mib).",
                where=shown_path(WORK),
                todo="free some space there",
            )


def _run(engine: Engine, argv: list[str], recipe: Recipe, tell: Tell) -> None:
    output = BuildOutput(tell, _SAY_S, recipe.name)
    output.step(f"building {recipe.tag} with {engine.kind}")
    code = 1
    try:
        with output.watched():
            code = run.stream(argv, output.heard)
        if code == 0:
            return
        engine.raise_unreachable("\n".join(output.lines))
        place = image_look.folder(engine)
        raise failure(output, engine.kind, str(place) if place else None)
    finally:
        if code == 0 or "no space" in "\n".join(output.lines).lower():
            # The stage that the image was copied from: ours alone by its label, and of no use now.
            words = ("image", "prune", "--force", "--filter", f"label={STAGE}={recipe.name}")
            engine.ask(*words, check=False)


def _remove_former(engine: Engine, former: str, tag: str, tell: Tell) -> None:
    """Remove the image that had this name before, unless it has another or a container needs it."""
    found = engine.inspect("image", former)
    if found is None or found.get("RepoTags") or _label(found, INPUTS) == "":
        return
    if engine.ask("image", "rm", "--", former, check=False).code != 0:
        tell(
            f"the former {tag} stays without a name, a container needs it;"
            f" later: {engine.kind} image rm {image_look.bare(former)[:12]}"
        )


def _why(former: dict[str, Any]) -> str:
    return "its inputs changed" if _label(former, INPUTS) else "was not built by this toolkit"


def _label(image: dict[str, Any], name: str) -> str:
    labels = (image.get("Config") or {}).get("Labels") or image.get("Labels") or {}
    return str(labels.get(name, ""))


def _built(recipe: Recipe, result: str, digest: str, image: dict[str, Any]) -> Built:
    size = int(image.get("Size") or 0)
    return Built(recipe.tag, result, digest, recipe.base, str(image["Id"]), size)
