"""What images and containers of this host have of omni-infer: the jobs "release-image" (before
anything is changed) and "release" (before servers start).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from hostkit.base.errors import ActionError, ToolkitError
from hostkit.containers import inside
from hostkit.containers.containers import Spec
from hostkit.containers.profile import words as loaded
from hostkit.nodes import setup_look
from hostkit.source import editable, patch_clone
from hostkit.source import packages as source_packages
from hostkit.source.git import VLLM
from hostkit.source.wheel_files import normal


def look_images(parameters: dict[str, Any]) -> dict[str, Any]:
    """What is in the images of containers. parameters: specs (of containers), python, packages.

    Returns by image: packages (versions by name), why (None; else why it could not be seen).
    """
    python, names = str(parameters["python"]), list(parameters["packages"])
    found: dict[str, dict[str, Any]] = {}
    for spec in parameters["specs"]:
        if spec["image"] not in found:
            try:
                found[spec["image"]] = {"packages": of_image(spec, python, names), "why": None}
            except ToolkitError as error:
                found[spec["image"]] = {"packages": {}, "why": error.what}
    return {"changed": False, "images": found}


def of_image(spec: Spec, python: str, names: Sequence[str]) -> dict[str, str]:
    """Versions of packages in a container's image, by name, of those that are there."""
    profile = spec["profile"]
    words = source_packages.look_argv(python, spellings(names))
    # The library is not needed to read what is installed.
    without = {**profile, "library": None} if profile else None
    try:
        done = setup_look.answer(spec, loaded(without, f"image {spec['image']}", words))
    except setup_look.Refused as refused:
        raise ActionError(f"no container of it can be started: {refused}") from refused
    if done.code != 0:
        raise ActionError(done.tail or f"exit status {done.code}")
    return installed(json.loads(done.out.strip().splitlines()[-1]), names)


def look(parameters: dict[str, Any]) -> dict[str, Any]:
    """What is in each place where servers run.

    parameters: packages (names), dir (the source's folder, None: none), patches (see clone.look);
    places: as for the job pip-install. Returns by place: packages (versions by name, without those
    of the source), source (names of those), unpatched (what its vLLM lacks, or None).
    """
    given = {key: parameters[key] for key in ("packages", "dir", "patches")}
    found = {}
    for place in parameters["places"]:
        name = place.get("container") or place["python"]
        found[name] = inside.where("release-inside", look_here, {**given, **place})
    return {"changed": False, "places": found}


def look_here(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job "release-inside": the same in one Python."""
    python, names = str(parameters["python"]), list(parameters["packages"])
    has = installed(source_packages.look(python, spellings(names)), names)
    code = Path(parameters["dir"]).resolve() if parameters["dir"] else None
    own = {
        place: normal(name)
        for place, (name, _) in editable.look(python).items()
        if code is not None and (place == code or code in place.parents)
    }
    source = [name for name in names if _squashed(name) in map(_squashed, own.values())]
    state = patch_clone.state(code, parameters["patches"]) if code and code / VLLM in own else None
    unpatched = state.lacks() if state is not None and state.missing else None
    packages = {name: version for name, version in has.items() if name not in source}
    return {"changed": False, "packages": packages, "source": source, "unpatched": unpatched}


def spellings(names: Iterable[str]) -> list[str]:
    """Names as packages were called at some time: omni_infer was omniinfer."""
    return [word for name in names for word in dict.fromkeys((name, _squashed(name)))]


def installed(found: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> dict[str, str]:
    """Versions by name as it is written in names, of those that are there."""
    by_name = {_squashed(name): str(one["version"]) for name, one in found.items()}
    return {name: by_name[_squashed(name)] for name in names if _squashed(name) in by_name}


def _squashed(name: str) -> str:
    return re.sub(r"[-_.]+", "", name).lower()
