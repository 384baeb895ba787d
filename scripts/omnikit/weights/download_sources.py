"""What a model consists of where it is published: names, sizes, hashes and addresses.

ModelScope and Hugging Face are asked through their own libraries; their files, and those of any
other web server, are then fetched the same way (download_fetch.py), so that all can be resumed and
checked alike.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Mapping, Optional
from urllib.parse import quote, urljoin

from omnikit.errors import ActionError, InputError
from omnikit.weights.checkpoint import INDEX, SINGLE

SUMS = ("SHA256SUMS", "sha256sum.txt", "sha256sums.txt")
# Beside the index and its files; what a plain web server has of these is taken.
_USUAL = (
    *("config.json", "generation_config.json", "configuration.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json"),
    *("merges.txt", "tokenizer.model", "chat_template.jinja", "preprocessor_config.json"),
    *("modeling_deepseek.py", "configuration_deepseek.py", "LICENSE"),
)
_REPOSITORY = re.compile(r"^[\w.-]+/[\w.-]+$")


@dataclass(frozen=True)
class Remote:
    """A published file. size: bytes, None: not known before it comes. url: or a path here. state:
    what changes with the content where no hash is published, "" where there is no such thing.
    """

    name: str
    url: str
    size: Optional[int] = None
    sha256: Optional[str] = None
    state: str = ""


@dataclass(frozen=True)
class Origin:
    """files: what is published. headers: that each request needs. shown: for people."""

    shown: str
    files: list[Remote]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Access:
    """endpoint: another address of the hub. token: shown to it alone."""

    revision: Optional[str] = None
    endpoint: Optional[str] = None
    token: Optional[str] = None
    timeout_s: float = 30.0


def find(text: str, access: Access, sums: Optional[Path] = None) -> Origin:
    """hf:ORG/NAME, modelscope:ORG/NAME, http(s)://..., file://... or a folder.

    sums: a file with published hashes, for the last three. Raises InputError: no such thing, or no
    right to it. Raises ActionError: it does not answer.
    """
    kind, _, rest = text.partition(":")
    if kind in ("hf", "huggingface", "modelscope"):
        if not _REPOSITORY.match(rest):
            raise InputError(
                f"{rest!r} is no repository, expected ORGANISATION/NAME.", where=_SETTING
            )
        return _modelscope(rest, access) if kind == "modelscope" else _hub(rest, access)
    if kind in ("http", "https"):
        return _web(text, access, sums)
    return _folder(Path(text[len("file://") :] if kind == "file" else text).expanduser(), sums)


_SETTING = "weights.download.origin"


def _hub(repository: str, access: Access) -> Origin:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.utils import HfHubHTTPError, build_hf_headers

    api = HfApi(endpoint=access.endpoint, token=access.token or False)

    def ask() -> Any:
        return api.model_info(
            repository, revision=access.revision, files_metadata=True, timeout=access.timeout_s
        )

    found = _asked(ask, HfHubHTTPError, f"hf:{repository}")
    files = [
        Remote(
            one.rfilename,
            hf_hub_url(repository, one.rfilename, revision=found.sha, endpoint=access.endpoint),
            one.size,
            one.lfs.sha256 if one.lfs else None,
            # Small files have git's hash alone; without it, equal length would look unchanged.
            "" if one.lfs else one.blob_id or "",
        )
        for one in found.siblings or []
    ]
    headers = build_hf_headers(token=access.token or False)
    return Origin(f"hf:{repository} at {str(found.sha)[:12]}", _safe(files), headers)


def _modelscope(repository: str, access: Access) -> Origin:
    from modelscope.hub.api import HubApi
    from modelscope.hub.file_download import get_file_download_url
    from requests.exceptions import HTTPError

    logging.getLogger("modelscope").setLevel(logging.CRITICAL)  # its errors are told by us
    api = HubApi(endpoint=access.endpoint, timeout=access.timeout_s)
    # As the library itself shows a token; its cookie jar does not know endpoints with a port.
    headers = {"Cookie": f"m_session_id={access.token}"} if access.token else {}
    revision = access.revision or "master"

    def ask() -> Any:
        return api.get_model_files(
            repository, revision=revision, recursive=True, headers=dict(headers)
        )

    found = _asked(ask, HTTPError, f"modelscope:{repository}")
    endpoint = access.endpoint or api.endpoint
    files = [
        Remote(
            one["Path"],
            get_file_download_url(repository, one["Path"], revision, endpoint),
            one.get("Size"),
            one.get("Sha256") or None,
        )
        for one in found
        if one.get("Type") != "tree"
    ]
    return Origin(f"modelscope:{repository} at {revision}", _safe(files), headers)


def _asked(ask: Callable[[], Any], refused: Any, what: str) -> Any:
    """A hub's answer, or its refusal in our words."""
    from requests.exceptions import RequestException

    try:
        return ask()
    except refused as error:
        raise refusal(getattr(error.response, "status_code", 0), what) from error
    except RequestException as error:
        raise unreachable(what, error) from error
    except Exception as error:  # the libraries' own kinds: of names, revisions and permissions
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{what}: {text[:200]}", where=_SETTING, todo=_NAME) from error


_NAME = "check name and revision; a private or gated model needs weights.download.token"


def refusal(status: int, what: str) -> Exception:
    """Why a server said no, and what to do; other states are told as failures."""
    if status in (401, 403):
        return InputError(
            f"{what}: the server refuses access ({status}).",
            where="weights.download.token",
            todo="name a token that may read it ({file: PATH} or {variable: NAME}); a gated model"
            " also wants its licence accepted on its page",
        )
    if status == 404:
        return InputError(f"{what}: is not there (404).", where=_SETTING, todo=_NAME)
    return ActionError(
        f"{what}: the server answers {status}.", todo="try again later, or another mirror"
    )


def unreachable(what: str, error: Exception) -> ActionError:
    """No answer."""
    reason = str(error).splitlines()[0][:200]
    return ActionError(
        f"{what}: no answer: {reason}",
        todo="check network and proxy (https_proxy), or name a mirror: weights.download.endpoint",
    )


def _web(text: str, access: Access, sums: Optional[Path]) -> Origin:
    import requests

    base = text if text.endswith("/") else f"{text}/"
    headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
    with requests.Session() as session:
        session.headers.update(headers)

        def ask(name: str, head: bool = False) -> Any:
            url = urljoin(base, quote(name))
            try:
                call = session.head if head else session.get
                answer = call(url, timeout=access.timeout_s, allow_redirects=True)
            except requests.RequestException as error:
                raise unreachable(url, error) from error
            if answer.status_code in (404, 410):
                return None
            if answer.status_code != 200:
                raise refusal(answer.status_code, url)
            return answer

        published = _sums_file(sums) if sums else {}
        for name in () if sums else SUMS:
            answer = ask(name)
            if answer is not None:
                published = read_sums(answer.text, urljoin(base, name))
                break
        names = set(published)
        index = ask(INDEX)
        if index is not None:
            names |= {INDEX, *_shards(index, urljoin(base, INDEX))}
        elif not names:
            names.add(SINGLE)
        files = []
        for name in sorted(names | set(_USUAL)):
            head = ask(name, head=True)
            if head is not None:
                length = head.headers.get("Content-Length")
                plain = head.headers.get("Content-Encoding") is None and length is not None
                size = int(length) if plain else None
                state = head.headers.get("ETag") or head.headers.get("Last-Modified") or ""
                url = urljoin(base, quote(name))
                files.append(Remote(name, url, size, published.get(name), state))
            elif name in names:
                raise refusal(404, urljoin(base, quote(name)))
    return Origin(base, _safe(files), headers)


def _shards(index: Any, where: str) -> set[str]:
    try:
        return set(index.json()["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError("is no index of a checkpoint.", where=where) from error


def _folder(folder: Path, sums: Optional[Path]) -> Origin:
    if not folder.is_dir():
        raise InputError(
            "there is no such folder.",
            where=str(folder),
            todo="name hf:ORG/NAME, modelscope:ORG/NAME, http(s)://SERVER/PATH or a folder",
        )
    beside = next((folder / name for name in SUMS if (folder / name).is_file()), None)
    found = sums or beside
    published = _sums_file(found) if found else {}
    files = [
        Remote(
            str(path.relative_to(folder)),
            str(path),
            path.stat().st_size,
            published.get(str(path.relative_to(folder))),
            str(path.stat().st_mtime_ns),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.parts[len(folder.parts) :])
    ]
    return Origin(str(folder), _safe(files))


def _sums_file(path: Path) -> dict[str, str]:
    try:
        return read_sums(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}.", where=str(path)) from error


def read_sums(text: str, where: str) -> dict[str, str]:
    """Name -> SHA-256, as sha256sum writes it. Raises InputError: where:line."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line.rstrip())
        if match is None:
            raise InputError("is no line of sha256sum.", where=f"{where}:{number}")
        found[match[2]] = match[1].lower()
    return found


def _safe(files: list[Remote]) -> list[Remote]:
    """Only names below a folder. Raises InputError."""
    for one in files:
        path = PurePosixPath(one.name)
        if path.is_absolute() or ".." in path.parts or "\0" in one.name or not path.parts:
            raise InputError(f"names the file {one.name!r}: not taken.", where=_SETTING)
    return files
