"""Which files lie at an HTTP address: the server's list, checksums, the index, the usual names."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Collection, Optional, Union
from urllib.parse import quote

from omnikit.errors import ActionError
from omnikit.weights import download_checksums, download_page
from omnikit.weights.checkpoint import INDEX, SINGLE
from omnikit.weights.download_faults import RefusedError
from omnikit.weights.download_page import Page
from omnikit.weights.download_request import Answer, Requests
from omnikit.weights.download_types import Listing, RemoteFile, checked_name

# What is looked for where a server shows no list of files.
_USUAL = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "tokenizer.model", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "configuration.json", INDEX, SINGLE,
)  # fmt: skip
_SMALL = 64 << 20  # a list or an index is not larger
_AT_ONCE = 8
_NONE = (403, 404, 410)  # a folder without a list is 403, and an object store's missing file too
_NO_LIST = (
    "this server shows no list of files; only the usual names and those of the index were looked"
    " for"
)


def of_url(base: str, requests: Requests, sums: Optional[dict[str, str]]) -> Listing:
    """All files that an address shows, or that its checksums and index name.

    base: ends with a slash. Folders below it are not looked into, but their files may stand in the
    checksums. Raises TransientError, ActionError, InputError.
    """
    page, status = _page(base, requests)
    if sums is None:
        sums = _published(base, requests, page.files)
    # Each name with who says that there is such a file; nobody does of the usual names.
    named = dict.fromkeys(sums, "the checksums name it")
    named.update(dict.fromkeys(page.files, "the server's list names it"))
    for name in download_checksums.NAMES:
        named.pop(name, None)
    guessed: dict[str, str] = {}
    notes = [f"{name}/ is a folder, which is not looked into" for name in sorted(page.folders)]
    if not page.files:  # checksums may be of the weights alone
        named.update(dict.fromkeys(_shards(base, requests), "the index names it"))
        guessed = {**dict.fromkeys(_USUAL, ""), **_modules(base, requests)}
        notes.append(_NO_LIST)
    heads, refused = _heads(base, {**guessed, **named}, set(named), requests)
    if not heads and not named:
        raise _nothing(base, status)
    download_checksums.all_there(sums, set(heads), base, refused)
    files = [
        RemoteFile(name, base + quote(name), head.total, sums.get(name, ""), head.version)
        for name, head in heads.items()
    ]
    lost = {name: f"{why}, {named[name]}" for name, why in refused.items() if name in named}
    notes += [
        f"{name} is not there ({why}), {guessed[name]}"
        for name, why in refused.items()
        if name not in named and guessed[name]
    ]
    return Listing(f"url:{base}", "", files, requests.host, requests.headers, lost, notes)


def _heads(
    base: str, names: Collection[str], named: Collection[str], requests: Requests
) -> tuple[dict[str, Answer], dict[str, str]]:
    """What the server tells of each file; why it does not of the others."""

    def look(name: str) -> Union[Answer, str]:
        try:
            answer = requests.look(base + quote(checked_name(name, base)))
        except RefusedError as error:
            if error.status not in _NONE:
                raise
            return f"HTTP {error.status}"
        # Some servers answer every name that is wrong with a page.
        page = name not in named and "html" in answer.content_type
        return "a web page instead" if page else answer

    ordered = sorted(names)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = dict(zip(ordered, pool.map(look, ordered)))
    heads = {name: one for name, one in found.items() if isinstance(one, Answer)}
    return heads, {name: one for name, one in found.items() if isinstance(one, str)}


def _nothing(base: str, status: int) -> ActionError:
    told = f" (HTTP {status})" if status else ""
    return ActionError(
        f"shows no list of files, no checksums and no checkpoint{told}.",
        where=base,
        todo="name the address of the folder in which config.json lies (weights.download.source);"
        " if it wants a login, set weights.download.token",
    )


def _published(base: str, requests: Requests, shown: set[str]) -> dict[str, str]:
    for name in download_checksums.NAMES:
        if not shown or name in shown:
            text = _text(base + name, requests)
            if text is not None:
                return download_checksums.parse(text, base + name)
            if shown:
                raise ActionError(
                    "the server's list names these checksums, and it does not give them.",
                    where=base + name,
                    todo="complete it there, or give --checksums FILE",
                )
    return {}


def _shards(base: str, requests: Requests) -> set[str]:
    text = _text(base + INDEX, requests)
    if text is None:
        return set()
    try:
        return set(map(str, json.loads(text)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ActionError("has no weight_map.", where=base + INDEX) from error


def _modules(base: str, requests: Requests) -> dict[str, str]:
    """Python files that the configuration names as the model's code, with who names them."""
    text = _text(base + "config.json", requests)
    try:
        given: Any = json.loads(text or "{}").get("auto_map") or {}
        classes = list(given.values())
    except (ValueError, AttributeError):
        return {}  # is told when it is read as a configuration
    found = {}
    flat = [name for one in classes for name in (one if isinstance(one, list) else [one])]
    for one in flat:
        module, _, name = one.rpartition(".") if isinstance(one, str) else ("", "", "")
        if module and name and "--" not in module:  # REPOSITORY--MODULE.CLASS lies elsewhere
            found[f"{module.replace('.', '/')}.py"] = "config.json names it in auto_map"
    return found


def _page(base: str, requests: Requests) -> tuple[Page, int]:
    """The list that a web server makes of a folder, empty when it makes none; its refusal."""
    try:
        answer = requests.open(base)
    except RefusedError as error:
        if error.status == 401:
            raise
        return Page(), error.status
    with answer.stream:
        if "html" not in answer.content_type:
            return Page(), 0
        return download_page.read(answer.stream.read(_SMALL).decode("utf-8", "replace"), base), 0


def _text(url: str, requests: Requests) -> Optional[str]:
    """A small file's text, None when there is none."""
    try:
        answer = requests.open(url)
    except RefusedError as error:
        if error.status in _NONE:
            return None
        raise
    with answer.stream:
        data: bytes = answer.stream.read(_SMALL)
    return None if "html" in answer.content_type else data.decode("utf-8", "replace")
