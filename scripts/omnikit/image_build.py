"""Builds an image on this machine with Docker or Podman, when its inputs are not the last time's.

The image carries a fingerprint of its inputs as a label: the next run compares it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from omnikit import (
    host_engine,
    host_image,
    host_image_look,
    image_context,
    image_pull,
    image_recipes,
    image_wheels,
    run,
)
from omnikit.config import Config
from omnikit.engine_progress import Progress
from omnikit.errors import ActionError, InputError
from omnikit.host_engine import Engine
from omnikit.image_output import BuildOutput, failure
from omnikit.image_recipes import Asked, Recipe
from omnikit.layers import PROJECT, shown_path

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
    recipe = image_recipes.recipe(config, asked)
    engine = host_engine.find(settings.container.engine)
    engine.version()  # a daemon that does not run is said before minutes of fetching
    with image_context.locked(WORK, recipe.name):
        if not dry_run:
            _ensure_base(config, engine, recipe)
        base = engine.inspect("image", recipe.base) if recipe.base else None
        digest = image_context.digest(recipe, str(base["Id"]) if base else "")
        former = engine.inspect("image", recipe.tag)
        if former and _label(former, INPUTS) == digest:
            return _built(recipe, "unchanged", digest, former)
        if dry_run:
            return _would(config, engine, recipe, digest)
        if former:
            tell(f"{recipe.tag}: {_why(former)}")
        _check_space(config, engine, recipe)
        progress = Progress(tell, _SAY_S, recipe.name)
        pins, wheels = image_wheels.needed(recipe.pins), WORK / _wheels_name(recipe)
        index = settings.engine.torch_index
        fetched = image_wheels.fetch(wheels, pins, image_recipes.PYTHON, index, progress)
        context = context_folder(recipe)
        image_context.write(context, recipe, fetched)
        _run(engine, build_argv(engine, recipe, digest, context), recipe, tell)
    image = engine.inspect("image", recipe.tag)
    if image is None or _label(image, INPUTS) != digest:
        raise ActionError(
            f"the engine said that it built {recipe.tag}, but there is no such image.",
            todo=f"look: {engine.kind} image ls",
        )
    if former:
        _remove_former(engine, str(former["Id"]), recipe.tag, tell)
    tell(f"{recipe.name}: built {recipe.tag}, {int(image['Size']) >> 20} MiB")
    return _built(recipe, "built", digest, image)


def build_argv(engine: Engine, recipe: Recipe, digest: str, context: Path) -> list[str]:
    """The command that builds. The network is the host's: packages of the system come over it."""
    labels = {
        "org.opencontainers.image.title": recipe.name,
        **recipe.labels,
        "org.opencontainers.image.base.name": recipe.base or "",
        "omnikit.image": recipe.name,
        INPUTS: digest,
    }
    words = ["build", "--network=host", "--force-rm", "--tag", recipe.tag]
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


def _would(config: Config, engine: Engine, recipe: Recipe, digest: str) -> Built:
    pins, wheels = image_wheels.needed(recipe.pins), WORK / _wheels_name(recipe)
    steps = image_wheels.steps(
        wheels, pins, image_recipes.PYTHON, config.settings.engine.torch_index
    )
    commands = [list(step.argv) for step in steps]
    commands.append(build_argv(engine, recipe, digest, context_folder(recipe)))
    if recipe.base and engine.inspect("image", recipe.base) is None:
        commands.insert(0, engine.argv("pull", recipe.base))
    return Built(
        recipe.tag,
        "would be built",
        digest,
        recipe.base,
        commands=tuple(run.show(words) for words in commands),
    )


def _ensure_base(config: Config, engine: Engine, recipe: Recipe) -> None:
    """The base image is here before its id is needed: a pull between two builds changes nothing."""
    if recipe.base is None or engine.inspect("image", recipe.base) is not None:
        return
    try:
        host_image.pull(image_pull.parameters(config, recipe.base))
    except ActionError as error:
        raise ActionError(
            f"the base image {recipe.base} is not here and cannot be pulled.\n  {error.what}",
            todo=f"name one that is here: --base IMAGE (setting container.build_base); or load it:"
            f" {engine.kind} load --input FILE",
        ) from error


def _check_space(config: Config, engine: Engine, recipe: Recipe) -> None:
    """Room where images live, and here for wheels that are still to be fetched."""
    settings = config.settings
    host_image_look.check_images_space(engine, settings.image.free_mib, recipe.tag)
    pins = image_wheels.needed(recipe.pins)
    if len(image_wheels.found(WORK / _wheels_name(recipe), pins)) < len(pins):
        needed = settings.engine.install_disk_mib
        free = host_image_look.free_mib(WORK)
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
        place = host_image_look.folder(engine)
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
            f" later: {engine.kind} image rm {host_image_look.bare(former)[:12]}"
        )


def _why(former: dict[str, Any]) -> str:
    return "its inputs changed" if _label(former, INPUTS) else "was not built by this toolkit"


def _label(image: dict[str, Any], name: str) -> str:
    labels = (image.get("Config") or {}).get("Labels") or image.get("Labels") or {}
    return str(labels.get(name, ""))


def _built(recipe: Recipe, result: str, digest: str, image: dict[str, Any]) -> Built:
    size = int(image.get("Size") or 0)
    return Built(recipe.tag, result, digest, recipe.base, str(image["Id"]), size)
