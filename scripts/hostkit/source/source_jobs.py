"""The jobs "source" and "build": omni-infer and vLLM from source on this host, up to the wheels."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator

from hostkit.base.errors import ActionError, InputError
from hostkit.containers import inside
from hostkit.source import build_run, build_state, clone, git
from hostkit.source.clone import Way
from hostkit.source.clone_look import Wanted


def fetch(parameters: dict[str, Any]) -> dict[str, Any]:
    """Have omni-infer's source in a folder, and vLLM's in infer_engines/vllm below it.

    parameters: dir, omniinfer and vllm ({urls, ref, commit}), patches (upstream's script for vLLM),
    attempts, delay_s, stall_s, free_mib, http_proxy; and what inside.where needs to do it in a
    container.
    """
    return inside.where("source", _fetch, parameters)


def build(parameters: dict[str, Any]) -> dict[str, Any]:
    """Have the wheels of these sources in build/dist.

    parameters: dir, build (the command), patches, python, packages, optional, free_mib, http_proxy;
    and what inside.where needs to do it in a container.
    """
    return inside.where("build", _build, parameters)


def wanted(parameters: dict[str, Any]) -> list[Wanted]:
    """The clones that are wanted, in order. Raises InputError for what may not be asked for."""
    code = Path(parameters["dir"])
    found = []
    for name, folder in build_state.folders(code).items():
        given = parameters[name]
        for url in given["urls"]:
            git.check_url(url)
        git.check_ref(given["ref"])
        found.append(
            Wanted(
                name=name,
                folder=folder,
                urls=tuple(given["urls"]),
                ref=given["ref"],
                commit=given["commit"],
                ours=build_state.OURS[name],
                setting=f"source.{name}",
                settle=build_state.settle(code, name, parameters["patches"]),
            )
        )
    return found


def _fetch(parameters: dict[str, Any]) -> dict[str, Any]:
    parameters = {**parameters, "dir": folder_of(parameters)}
    way = Way(
        attempts=int(parameters["attempts"]),
        delay_s=float(parameters["delay_s"]),
        stall_s=float(parameters["stall_s"]),
        free_mib=float(parameters["free_mib"]),
        proxy=parameters.get("http_proxy"),
    )
    clones = wanted(parameters)
    git.program(way.stall_s)
    with alone(Path(parameters["dir"])):
        done = {one.name: clone.ensure(one, way) for one in clones}
    changed = any(one["action"] != "unchanged" for one in done.values())
    return {"changed": changed, "dir": parameters["dir"], "sources": done}


def _build(parameters: dict[str, Any]) -> dict[str, Any]:
    folder = folder_of(parameters)
    if not Path(folder).is_dir():
        raise InputError(
            "there is no such folder.",
            where=folder,
            todo="fetch the sources first: scripts/build_from_source.sh --only fetch",
        )
    with alone(Path(folder)):
        return build_run.build({**parameters, "dir": folder})


def folder_of(parameters: dict[str, Any]) -> str:
    """The folder that is meant, absolute. Raises InputError."""
    folder = Path(parameters["dir"]).expanduser()
    if not folder.is_absolute():
        raise InputError(
            f"the folder of the source must be an absolute path, found {str(folder)!r}.",
            where="--dir",
        )
    return str(folder)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While this holds, no other run of ours works in the folder. Made if it is not there."""
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(
            f"this folder cannot be used: {error.strerror}.",
            where=str(folder),
            todo="name another (--dir DIR), or run this as a user who may write there",
        ) from error
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                "another fetch or build of these sources is under way.",
                where=str(folder),
                todo="wait for it; see what it is: ps -ef",
            ) from error
        yield
    except OSError as error:
        raise ActionError(
            f"a file could not be read or written: {error.strerror}.",
            where=str(error.filename or folder),
            todo=f"see who owns it and how full the disk is: ls -ld {error.filename or folder};"
            f" df -h {folder}",
        ) from error
    finally:
        os.close(number)
        if new:
            with suppress(OSError):  # not empty: it is used
                folder.rmdir()
