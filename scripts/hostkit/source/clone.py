"""One clone on this host: look what is there, compare with what is wanted, fetch, check out.

A clone that an ended run left half-made is known by our mark in its .git folder, and continued.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence, Union

from hostkit.base import health, run
from hostkit.base.command import watch
from hostkit.base.errors import ActionError
from hostkit.base.faults import NETWORK, REFUSED, SPACE, Fault
from hostkit.base.log import say
from hostkit.source import git
from hostkit.source.clone_look import (
    DONE,
    FETCHING,
    MOVING,
    NEW,
    Wanted,
    check_folder,
    check_remotes,
    check_space,
    dirty,
    files,
    head,
    is_there,
    read_mark,
    resolve,
    was_here,
    write_mark,
)

_CHECKOUT_S = 1800.0  # writing the files of a large source to a slow disk
# What an ended git leaves behind. The locks would stop the next one.
_OF_FETCHING = ("shallow.lock", "packed-refs.lock", "refs/tags/**/*.lock", "objects/pack/tmp_*")
_OF_MOVING = ("index.lock", "HEAD.lock", "config.lock")
_LINE = re.compile(r"^([0-9a-f]{40})\t(\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Way:
    """How fetching is done."""

    attempts: int
    delay_s: float
    stall_s: float
    free_mib: float
    proxy: Optional[str] = None

    @property
    def env(self) -> dict[str, str]:
        """Variables for git."""
        return git.environment(self.stall_s, self.proxy)


@dataclass(frozen=True)
class _Has:
    """What a URL has under the reference: its commit, and the word that fetches it."""

    commit: str
    refspec: str
    tag: str = ""


def plan_argvs(wanted: Wanted) -> list[list[str]]:
    """All that fetching may run where nothing is there, in order, for --dry-run."""
    url = git.hide(git.source(wanted.urls[0]).url)
    tag = f"+refs/tags/{wanted.ref}:refs/tags/{wanted.ref}"
    where = ["git", "-C", str(wanted.folder)]
    spec = wanted.ref if git.COMMIT.fullmatch(wanted.ref) else tag
    return [
        ["git", "ls-remote", "--", url, *_names(wanted.ref)],
        ["git", "init", "--quiet", "--", str(wanted.folder)],
        [*where, "remote", "add", "origin", url],
        [*where, "fetch", "--depth=1", "--no-tags", "--progress", "--", url, spec],
        [*where, "checkout", "--detach", wanted.commit or "FETCH_HEAD"],
    ]


def ensure(wanted: Wanted, way: Way) -> dict[str, Any]:
    """Have a clone at what is wanted. The result's action says what was done.

    Raises InputError when the folder is not for us, ActionError when it cannot be fetched.
    """
    folder = wanted.folder
    check_folder(wanted)
    before = head(folder)
    moving = read_mark(folder).get("state") == MOVING
    if before or moving:
        check_remotes(wanted)
    if before and not moving:
        there = files(folder, wanted.ours, way.stall_s)
        if there.changed and not wanted.settle(False):
            raise dirty(wanted, there)
        if is_there(wanted, before):
            return _result(wanted, "unchanged", before)
    return _from_first(wanted, way, before)


def _from_first(wanted: Wanted, way: Way, before: Optional[str]) -> dict[str, Any]:
    """From the first URL that gives it, with further attempts after faults of the network."""
    left, delay = list(wanted.urls), way.delay_s
    refused: list[Fault] = []
    for attempt in range(1, way.attempts + 1):
        cut: list[Fault] = []
        for url in list(left):
            done = _try(wanted, way, url, before)
            if isinstance(done, dict):
                return done
            if done.kind == SPACE:
                raise _no_space(wanted, done)
            if done.kind == NETWORK:
                cut.append(done)
            else:
                left.remove(url)
                refused.append(done)
            if url != wanted.urls[-1]:
                say(f"{done.line()}; asking the next")
        if cut and before and was_here(wanted, before):
            note = f"{cut[-1].line()}; what is here stays"
            say(f"{wanted.name}: {note}")
            return {**_result(wanted, "unchanged", before), "note": note}
        if not cut or attempt == way.attempts:
            raise _given_up(wanted, [*refused, *cut], attempt)
        say(f"{cut[-1].line()}; attempt {attempt + 1} of {way.attempts} in {delay:g} s")
        health.wait_until(lambda: False, delay, delay)
        delay *= 2
    raise AssertionError("unreachable")


def _try(wanted: Wanted, way: Way, url: str, before: Optional[str]) -> Union[dict[str, Any], Fault]:
    """One attempt at one URL: what it has is looked at before anything is written."""
    folder, source, mark = wanted.folder, git.source(url), read_mark(wanted.folder)
    state = mark.get("state")
    has = _ask(wanted, way, source)
    if isinstance(has, Fault):
        return has
    if wanted.commit is not None and has.commit != wanted.commit:
        why = f"{wanted.ref} is {has.commit} there, {wanted.setting}_commit is {wanted.commit}"
        todo = f"see which is right, and set {wanted.setting}_ref and {wanted.setting}_commit"
        return Fault(REFUSED, git.hide(url), why, todo)
    if before == has.commit and state != MOVING and not has.tag:
        write_mark(folder, {**mark, "state": DONE, "ref": wanted.ref, "commit": before})
        return _result(wanted, "unchanged", before)
    check_space(folder, way.free_mib, wanted.name)
    if before is None and state != MOVING:
        mark = _begin(wanted, source.url)
    elif state in (FETCHING, MOVING):
        _sweep(folder, _OF_FETCHING)
    if before and state != MOVING:
        mark = write_mark(folder, {**mark, "state": FETCHING})
    failed = _fetch(wanted, way, source, has, bool(mark.get("made")))
    if failed is not None:
        if before:  # its files are as they were
            write_mark(folder, {**mark, "state": state})
        return failed
    return {**_check_out(wanted, way, mark, before), "from": git.hide(url)}


def _ask(wanted: Wanted, way: Way, source: git.Source) -> Union[_Has, Fault]:
    """What a URL has under the wanted reference. Changes nothing."""
    if git.COMMIT.fullmatch(wanted.ref):
        return _Has(wanted.ref, wanted.ref)
    ended = watch(
        git.words(None, "ls-remote", "--", source.url, *_names(wanted.ref)),
        f"asking for {wanted.name}",
        env={**way.env, **source.env},
        stall_s=way.stall_s,
        hide=git.hide,
    )
    if ended.code != 0:
        return git.fault(ended, source.url)
    has = {name: commit for commit, name in _LINE.findall(ended.said)}
    tag = f"refs/tags/{wanted.ref}"
    if tag in has:
        return _Has(has.get(f"{tag}^{{}}", has[tag]), f"+{tag}:{tag}", tag)
    for name in (f"refs/heads/{wanted.ref}", wanted.ref):
        if name in has:
            return _Has(has[name], name)
    why = f"it has no tag or branch {wanted.ref}"
    todo = f"set {wanted.setting}_ref to one that it has, or to a whole commit of 40 digits"
    return Fault(REFUSED, source.url, why, todo)


def _names(ref: str) -> list[str]:
    """What is asked for: a tag, what an annotated tag means, a branch."""
    names = [f"refs/tags/{ref}", f"refs/tags/{ref}^{{}}", f"refs/heads/{ref}"]
    return [*names, ref] if ref.startswith("refs/") else names


def _begin(wanted: Wanted, url: str) -> dict[str, Any]:
    """An empty clone with our mark, or the one that an ended run began."""
    folder = wanted.folder
    folder.mkdir(parents=True, exist_ok=True)
    run.run(["git", "init", "--quiet", "--", str(folder)])
    mark = write_mark(folder, {"made": True, "state": NEW})
    _sweep(folder, _OF_FETCHING + _OF_MOVING)
    run.run(git.words(folder, "config", "remote.origin.url", url))
    fetched = "+refs/heads/*:refs/remotes/origin/*"
    run.run(git.words(folder, "config", "remote.origin.fetch", fetched))
    return mark


def _fetch(wanted: Wanted, way: Way, source: git.Source, has: _Has, made: bool) -> Optional[Fault]:
    """Fetch one commit and its tag, which the build checks out by its name."""
    folder = wanted.folder
    # With a depth, git would cut the history of somebody's whole clone.
    shallow = ["--depth=1"] if made or (folder / ".git/shallow").exists() else []
    say(f"{wanted.name}: fetching {wanted.ref} from {git.hide(source.url)}")
    words = ["fetch", *shallow, "--no-tags", "--progress", "--", source.url, has.refspec]
    ended = watch(
        git.words(folder, *words),
        f"fetching {wanted.name}",
        env={**way.env, **source.env},
        stall_s=way.stall_s,
        hide=git.hide,
    )
    if ended.code == 0:
        return None
    _sweep(folder, _OF_FETCHING)
    return git.fault(ended, source.url, folder)


def _check_out(
    wanted: Wanted, way: Way, mark: dict[str, Any], before: Optional[str]
) -> dict[str, Any]:
    """Put the files of what was fetched in place; a run that is ended here is continued."""
    folder, continued = wanted.folder, mark.get("state") == MOVING
    got = resolve(folder, "FETCH_HEAD")
    if got is None or wanted.commit not in (None, got):
        raise ActionError(
            f"{wanted.ref} has become {got}, {wanted.setting}_commit is {wanted.commit}.",
            where=str(folder),
            todo=f"see which is right, and set {wanted.setting}_commit",
        )
    if got == before and not continued:
        write_mark(folder, {**mark, "state": DONE, "ref": wanted.ref, "commit": got})
        return _result(wanted, "tagged", got)
    if before and not continued:
        wanted.settle(True)
    if continued:
        _sweep(folder, _OF_MOVING)
        if mark.get("to") not in (None, got):  # end it first: its files are known by its commit
            words = ["checkout", "--quiet", "--force", "--detach", mark["to"]]
            git.ask(folder, *words, timeout_s=_CHECKOUT_S)
    mark = write_mark(folder, {**mark, "state": MOVING, "to": got})
    # It was clean, or empty, when this began: what is half there is ours.
    force = ["--force"] if continued or before is None else []
    words = ["checkout", "--quiet", *force, "--detach", got]
    git.ask(folder, *words, timeout_s=_CHECKOUT_S)
    write_mark(folder, {**mark, "state": DONE, "ref": wanted.ref, "commit": got})
    return _result(wanted, "continued" if continued else "moved" if before else "cloned", got)


def _sweep(folder: Path, patterns: Sequence[str]) -> None:
    """Remove what an ended git of ours left."""
    for pattern in patterns:
        for path in (folder / ".git").glob(pattern):
            path.unlink(missing_ok=True)


def _no_space(wanted: Wanted, fault: Fault) -> ActionError:
    return ActionError(
        f"no space is left on the disk for {wanted.name}; what was being fetched is removed.\n"
        + fault.said,
        where=str(wanted.folder),
        todo=fault.todo,
    )


def _given_up(wanted: Wanted, faults: Sequence[Fault], attempts: int) -> ActionError:
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    asked = "\n".join(part for fault in faults for part in (fault.line(), fault.said) if part)
    state = read_mark(wanted.folder).get("state")
    left = " An empty clone is left there; the next run goes on with it." if state == NEW else ""
    return ActionError(
        f"{wanted.name} could not be fetched in {times}.{left}\n{asked}",
        where=str(wanted.folder),
        todo=faults[0].todo,
    )


def _result(wanted: Wanted, action: str, commit: str) -> dict[str, Any]:
    folder = str(wanted.folder)
    return {"action": action, "commit": commit, "ref": wanted.ref, "folder": folder}
