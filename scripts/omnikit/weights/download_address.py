"""Which files lie at an HTTP address or in a folder: its list, checksums, the index."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Optional
from urllib.parse import quote, unquote, urljoin, urlsplit

from omnikit.errors import ActionError, InputError
from omnikit.weights import download_checksums
from omnikit.weights.checkpoint import INDEX, SINGLE
from omnikit.weights.download_faults import RefusedError
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


def of_folder(folder: Path, sums: Optional[dict[str, str]]) -> Listing:
    """All files below a folder but hidden ones and checksums. Raises InputError."""
    if not folder.is_dir():
        raise InputError(
            "there is no such folder.",
            where=str(folder).partition("?")[0],  # an address without its scheme may have a token
            todo="mend weights.download.source: a hub's name (modelscope, huggingface),"
            " http(s)://HOST/FOLDER, or a folder of this machine",
        )
    if sums is None:
        lists = [folder / name for name in download_checksums.NAMES if (folder / name).is_file()]
        text = lists[0].read_text(encoding="utf-8") if lists else ""
        sums = download_checksums.parse(text, str(lists[0])) if lists else {}
    files = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if path.is_file() and not hidden and name not in download_checksums.NAMES:
            status = path.stat()
            version = f"mtime:{status.st_mtime_ns}-{status.st_size}"
            url = path.absolute().as_uri()
            files.append(RemoteFile(name, url, status.st_size, sums.get(name, ""), version))
    _all_there(sums, {file.name for file in files}, str(folder))
    return Listing(f"folder:{folder.absolute()}", "", files)


def of_url(base: str, requests: Requests, sums: Optional[dict[str, str]]) -> Listing:
    """All files that an address shows, or that its checksums and index name.

    base: ends with a slash. Folders below it are not looked into, but their files may stand in the
    checksums. Raises TransientError, ActionError, InputError.
    """
    shown = _shown(base, requests)
    if sums is None:
        sums = _published(base, requests, shown)
    names = {*shown, *sums} - set(download_checksums.NAMES)
    if not shown:  # checksums may be of the weights alone
        names |= {*_USUAL, *_shards(base, requests)}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        urls = {name: base + quote(checked_name(name, base)) for name in sorted(names)}
        heads = dict(zip(urls, pool.map(lambda url: _head(url, requests), urls.values())))
    files = [
        RemoteFile(name, urls[name], head.total, sums.get(name, ""), head.version)
        for name, head in heads.items()
        if head is not None
    ]
    if not files:
        raise ActionError(
            "shows no list of files, no checksums and no checkpoint.",
            where=base,
            todo="name the address of the folder in which config.json lies",
        )
    _all_there(sums, {file.name for file in files}, base)
    return Listing(f"url:{base}", "", files, requests.host, requests.headers)


def _all_there(sums: dict[str, str], found: set[str], where: str) -> None:
    missing = sorted(set(sums) - found)
    if missing:
        raise ActionError(
            f"lacks {len(missing)} files that the checksums name: {', '.join(missing[:3])}.",
            where=where,
            todo="complete it, or make the checksums anew",
        )


def _published(base: str, requests: Requests, shown: set[str]) -> dict[str, str]:
    for name in download_checksums.NAMES:
        if not shown or name in shown:
            text = _text(base + name, requests)
            if text is not None:
                return download_checksums.parse(text, base + name)
    return {}


def _shards(base: str, requests: Requests) -> set[str]:
    text = _text(base + INDEX, requests)
    if text is None:
        return set()
    try:
        return set(map(str, json.loads(text)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ActionError("has no weight_map.", where=base + INDEX) from error


def _shown(base: str, requests: Requests) -> set[str]:
    """Names in the list that a web server makes of a folder; empty when it makes none."""
    try:
        answer = requests.open(base)
    except RefusedError as error:
        if error.status == 401:
            raise
        return set()  # a folder without a list is 403 or 404
    with answer.stream:
        if "html" not in answer.content_type:
            return set()
        links = _Links()
        links.feed(answer.stream.read(_SMALL).decode("utf-8", "replace"))
    found = set()
    for link in links.found:
        parts = urlsplit(urljoin(base, link))
        # Decoded, for servers encode other characters than we do.
        address = unquote(parts._replace(query="", fragment="").geturl())
        if address.startswith(unquote(base)) and not parts.query:
            name = address[len(unquote(base)) :]
            if name and "/" not in name and not name.startswith("."):
                found.add(name)
    return found


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        self.found += [text for name, text in attrs if tag == "a" and name == "href" and text]


def _text(url: str, requests: Requests) -> Optional[str]:
    """A small file's text, None when there is none."""
    try:
        answer = requests.open(url)
    except RefusedError as error:
        if error.status in (403, 404, 410):
            return None
        raise
    with answer.stream:
        data: bytes = answer.stream.read(_SMALL)
    return None if "html" in answer.content_type else data.decode("utf-8", "replace")


def _head(url: str, requests: Requests) -> Optional[Answer]:
    """Size and version of a file; None when there is none."""
    try:
        answer = requests.open(url, method="HEAD")
    except RefusedError as error:
        if error.status in (405, 501):  # a server that has no HEAD
            answer = requests.open(url)
        elif error.status in (403, 404, 410):
            return None
        else:
            raise
    answer.close()
    return answer
