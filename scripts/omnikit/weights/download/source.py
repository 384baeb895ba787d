"""The source that the settings name: a hub, a web address or a folder of this machine. Refused when
it can be none; asked for its files, again when the network fails.

The hubs' own libraries list and authenticate; the transfer is ours (transfer.py), so that all
sources are resumed, verified as they come, and counted alike.
An address may hold a secret (a password, a token in its query): no message repeats such a part.
"""

from __future__ import annotations

import base64
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Collection, Iterator, Mapping, Optional, Sequence, TypeVar, Union
from urllib.parse import quote, unquote, urlsplit

from requests.exceptions import HTTPError, JSONDecodeError, RequestException

from hostkit.base.errors import ActionError, InputError
from hostkit.base.health import wait_until
from hostkit.base.values import parsed
from omnikit.weights.checkpoint.hashes import NAMES, parse_sums, read_sums
from omnikit.weights.checkpoint.headers import INDEX, SINGLE
from omnikit.weights.download import request
from omnikit.weights.download.request import Answer, RefusedError, Requests
from omnikit.weights.download.types import (
    Listing,
    Patience,
    RemoteFile,
    TransientError,
    checked_name,
    host_of,
)

_MAIN = "master"
_NAMES = "compare weights.download.repository and .revision with the repository's page"
# The small files that checkpoints have by these names; no index tells of them.
_USUAL = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "tokenizer.model", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "configuration.json", INDEX, SINGLE,
)  # fmt: skip
_SMALL = 64 << 20  # a list or an index is not larger
_AT_ONCE = 8
_NONE = (403, 404, 410)  # an object store's missing file is 403
Asked = TypeVar("Asked")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SETTING = "weights.download.source"
_WEB = ("http", "https")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(https?|file):", re.IGNORECASE)
_KNOWN = "http://HOST/FOLDER, https://HOST/FOLDER, file:///FOLDER, or a folder's path"
HUBS = ("modelscope", "huggingface")


def listing(given: Any, token: Optional[str], say: Callable[[str], None]) -> Listing:
    """The files of the source in the settings weights.download. Raises InputError, ActionError."""
    sums = None
    if given.checksums:
        path = expanded(given.checksums, "weights.download.checksums")
        sums = read_sums(path, "mend weights.download.checksums (--checksums)")
    hub = given.source in HUBS
    where = given.endpoint or given.source if hub else given.source
    return _patiently(lambda: _listing(given, token, sums), given, say, where=where, hub=hub)


def text_of(
    file: RemoteFile, listed: Listing, patience: Patience, say: Callable[[str], None]
) -> bytes:
    """The content of a small file, in memory. Raises ActionError."""

    def ask() -> bytes:
        requests = Requests(patience.timeout_s, listed.host, listed.headers, listed.hub)
        return requests.open(file.url).read(_SMALL)

    return _patiently(ask, patience, say, where=file.url, hub=listed.hub)


def _patiently(
    ask: Callable[[], Asked],
    patience: Patience,
    say: Callable[[str], None],
    *,
    where: str,
    hub: bool,
) -> Asked:
    attempt, delay_s = 1, patience.delay_s
    while True:
        try:
            return ask()
        except TransientError as error:
            if attempt >= patience.attempts:
                raise request.given_up(error, where, attempt, hub=hub) from error
            pause_s = max(delay_s, error.wait_s)
            say(f"{error}; next attempt in {pause_s:.0f} s")
            wait_until(lambda: False, pause_s, pause_s)
        attempt, delay_s = attempt + 1, delay_s * 2


def check(given: Any) -> None:
    """Raises InputError: the settings name no source that could be asked."""
    if given.source not in HUBS:
        check_place(given.source)
        if given.repository:
            raise InputError(
                f"repository is set, but {request.plain(given.source)} is no hub.",
                where="weights.download.repository",
                todo=f"--source {' or '.join(HUBS)}, or leave the repository out",
            )
    elif not given.repository or not _REPOSITORY.fullmatch(given.repository):
        raise InputError(
            f"found {given.repository or 'none'}, expected a repository's name,"
            " for example deepseek-ai/DeepSeek-R1.",
            where="weights.download.repository",
            todo="--repository OWNER/NAME, as on its page",
        )


def _listing(given: Any, token: Optional[str], sums: Optional[dict[str, str]]) -> Listing:
    if given.source in HUBS:
        found = (modelscope if given.source == HUBS[0] else huggingface)(given, token)
        return found if sums is None else _with_sums(found, sums)
    if is_web(given.source):
        base = address(given.source)
        headers = {"Authorization": _authorization(token)} if token else {}
        requests = Requests(given.timeout_s, host_of(base), headers, hub=False)
        return of_url(base, requests, sums)
    return of_folder(folder_named(given.source), sums)


def folder(given: Any) -> Optional[Path]:
    """The folder that is the source, None for hubs and addresses. Raises InputError."""
    remote = given.source in HUBS or is_web(given.source)
    return None if remote else folder_named(given.source)


def _authorization(token: str) -> str:
    """USER:PASSWORD is HTTP's basic way, anything else a bearer's token."""
    if ":" in token:
        return f"Basic {base64.b64encode(token.encode()).decode()}"
    return f"Bearer {token}"


def _with_sums(found: Listing, sums: dict[str, str]) -> Listing:
    all_there(sums, {file.name for file in found.files}, found.origin, {})
    files = [replace(file, hash=sums.get(file.name, file.hash)) for file in found.files]
    return replace(found, files=files)


def scheme(source: str) -> str:
    """http, https, file, another one, or empty for a path."""
    found = _SCHEME.match(source)
    return (found[1] or found[2]).lower() if found else ""


def is_web(source: str) -> bool:
    """Whether it is asked for by HTTP."""
    return scheme(source) in _WEB


def check_place(source: str) -> None:
    """Raises InputError: it is no address or path that could name the folder of a checkpoint."""
    kind = scheme(source)
    if not kind:
        return
    if kind not in (*_WEB, "file"):
        raise InputError(
            f"found the scheme {kind}://, known are http://, https:// and file://.",
            where=_SETTING,
            todo=f"give {_KNOWN}",
        )
    if "?" in source or "#" in source:
        raise InputError(
            "found an address with a query or a fragment (? or #); one of a folder has none,"
            " for the files' names are put behind it.",
            where=_SETTING,
            todo="leave it out; a token goes into weights.download.token, as a file or a variable;"
            " in a folder's name, ? is written %3F and # is %23",
        )
    if kind == "file":
        _check_file(source)
    else:
        _check_web(source)


def _check_web(source: str) -> None:
    try:
        parts = urlsplit(source)
        host = parts.hostname if parts.port != 0 else None
        address(source)
    except ValueError:  # its text may repeat a password
        host = None
    if not host or "@" in parts.netloc:
        raise InputError(
            "found an address with a user's name or without a host and port that can be read.",
            where=_SETTING,
            todo="give USER:PASSWORD by weights.download.token, as a file or a variable",
        ) from None


def _check_file(source: str) -> None:
    host, path = urlsplit(source)[1:3]
    if host not in ("", "localhost") or not path.startswith("/"):
        raise InputError(
            f"found file: with the host {host.rpartition('@')[2] or 'none'} and no whole path;"
            " only files of this machine can be read so.",
            where=_SETTING,
            todo="give file:///FOLDER with the whole path, or the folder's path alone",
        )


def address(source: str) -> str:
    """A web address with its end slash, as it is sent: what is not yet encoded is encoded.

    So blanks and names in any script can be given as they are read. Raises ValueError.
    """
    parts = urlsplit(source)
    encoded = quote(parts.path, safe="/%:@!$&'()*+,;=~")
    path = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", encoded).rstrip("/") + "/"
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    return parts._replace(netloc=host, path=path).geturl()


def folder_named(source: str) -> Path:
    """The folder that a path or a file: address names. Raises InputError: no such user's home."""
    if scheme(source) == "file":
        return Path(unquote(urlsplit(source).path))
    return expanded(source, _SETTING)


def expanded(text: str, where: str) -> Path:
    """A path with the home folder in place of ~. Raises InputError: it is nobody's."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"found {text.partition('/')[0]}, and there is no such user with a home folder here.",
            where=where,
            todo="write the whole path",
        ) from error


def check_apart(source: Path, target: Path) -> None:
    """Raises InputError: one folder is the other, or lies in it."""
    if not source.is_dir():
        return  # is told when it is asked
    above, below = source.resolve(), target.resolve()
    if above == below:
        raise InputError("source and target are the same folder.", where=str(target))
    if above in below.parents or below in above.parents:
        inner, outer = ("target", "source") if above in below.parents else ("source", "target")
        raise InputError(
            f"the {inner} lies in the {outer}, {min(above, below, key=lambda one: len(one.parts))}:"
            " one run would fetch what another has written.",
            where=str(target if inner == "target" else source),
            todo="choose a --target beside the source",
        )


@contextmanager
def _explained(where: str, variable: str, *, token: bool) -> Iterator[None]:
    """A library's error in our words. variable: of the environment, names the hub."""
    try:
        yield
    except HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if request.is_passing(status):
            raise TransientError(f"HTTP {status}") from error
        raise request.refused(status, where, token=token) from error
    # Before RequestException, which the first of them is too: no fault of the network.
    except (JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise request.no_hub(where, variable) from error
    except (RequestException, OSError) as error:
        raise request.unreachable(error, where, variable) from error


def _mirror(given: Any) -> Optional[str]:
    return given.endpoint.rstrip("/") if given.endpoint else None


def huggingface(given: Any, token: Optional[str]) -> Listing:
    """All files of a repository at the commit that a revision means now. Large files have a
    SHA-256, small ones git's own hash.

    given: the settings weights.download; endpoint: of a mirror; None: HF_ENDPOINT, else
    huggingface.co. token: None: HF_TOKEN or the one that the library has stored. Raises
    TransientError, ActionError.
    """
    # Late: 0.3 s.
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, HFValidationError
    from huggingface_hub.utils import build_hf_headers

    repository = given.repository
    api = HfApi(endpoint=_mirror(given), token=token)
    where = request.plain(f"{api.endpoint}/{repository}")
    headers = build_hf_headers(token=token)
    secret = {name: text for name, text in headers.items() if name.lower() == "authorization"}
    with _explained(where, "HF_ENDPOINT", token=bool(secret)):
        try:
            info = api.model_info(
                repository,
                revision=given.revision,
                files_metadata=True,
                timeout=given.timeout_s,
            )
        except HFValidationError as error:
            raise ActionError(str(error), where="weights.download.repository") from error
        except GatedRepoError as error:
            # A hidden repository is told as an absent one; gated is 403 for a known account.
            raise request.refused(403, where, token=bool(secret)) from error
    commit = str(info.sha or given.revision or "main")
    files = [
        RemoteFile(
            checked_name(one.rfilename, where),
            hf_hub_url(repository, one.rfilename, revision=commit, endpoint=api.endpoint),
            one.lfs.size if one.lfs else one.size,
            f"sha256:{one.lfs.sha256}" if one.lfs else f"git:{one.blob_id}" if one.blob_id else "",
        )
        for one in info.siblings or []
    ]
    origin = f"huggingface:{repository}"
    return Listing(origin, commit, files, host_of(api.endpoint), secret)


def modelscope(given: Any, token: Optional[str]) -> Listing:
    """All files of a repository at a revision, with their SHA-256.

    given: as of huggingface; endpoint: None: MODELSCOPE_DOMAIN, else modelscope.cn. token: None:
    what "modelscope login" has stored. Raises TransientError, ActionError.
    """
    # Late: 0.3 s.
    from modelscope.hub.api import HubApi
    from modelscope.hub.errors import RequestError
    from modelscope.hub.file_download import get_file_download_url

    # It logs each error that it raises; we say it once, and better.
    logging.getLogger("modelscope").setLevel(logging.CRITICAL)
    repository, wanted = given.repository, given.revision or _MAIN
    api = HubApi(endpoint=_mirror(given), timeout=given.timeout_s, max_retries=0)
    where = request.plain(f"{api.endpoint}/models/{repository}")
    cookies = api.get_cookies(access_token=token)
    secret = {}
    if cookies is not None:
        # A cookie's domain has no port, so a mirror at HOST:PORT would not get the library's.
        secret["Cookie"] = "; ".join(f"{cookie.name}={cookie.value}" for cookie in cookies)
    with _explained(where, "MODELSCOPE_DOMAIN", token=bool(secret)):
        try:
            found = api.get_model_files(
                repository,
                revision=wanted,
                recursive=True,
                use_cookies=False if cookies is None else cookies,
                headers={**api.headers, **secret},
            )
        except RequestError as error:
            raise ActionError(f"the server says: {error}.", where=where, todo=_NAMES) from error
    files = []
    for one in found:
        if one.get("Type") != "tree":
            url = get_file_download_url(repository, one["Path"], wanted, api.endpoint)
            files.append(_of_modelscope(one, where, url))
    return Listing(f"modelscope:{repository}", wanted, files, host_of(api.endpoint), secret)


def _of_modelscope(one: dict[str, Any], where: str, url: str) -> RemoteFile:
    digest = str(one.get("Sha256") or "")
    size = one.get("Size")
    return RemoteFile(
        checked_name(one["Path"], where),
        url,
        size if isinstance(size, int) else None,
        f"sha256:{digest.lower()}" if len(digest) == 64 else "",
        f"revision:{one.get('Revision')}" if one.get("Revision") else "",
    )


def of_url(base: str, requests: Requests, sums: Optional[dict[str, str]]) -> Listing:
    """The files that an address's checksums and index name, and those with a checkpoint's usual
    names; its page is not read.

    base: ends with a slash. Raises TransientError, ActionError, InputError.
    """
    notes = []
    if sums is None:
        sums = _sums_of_url(base, requests)
    if not sums:
        notes.append(
            "there is no SHA256SUMS; only the usual names and those of the index were looked for."
            " What else is wanted, such a list names: sha256sum * > SHA256SUMS"
        )
    # Each name with who says that there is such a file; nobody does of the usual names.
    named = {
        **dict.fromkeys(sums, "the checksums name it"),
        **dict.fromkeys(_shards(base, requests), "the index names it"),
    }
    for name in NAMES:  # a list may name itself
        named.pop(name, None)
    usual = {**dict.fromkeys(_USUAL, ""), **_modules(base, requests)}
    heads, refused = _heads(base, {**usual, **named}, set(named), requests)
    if not heads and not named:
        raise ActionError(
            f"has no checksums ({NAMES[0]}), no {INDEX} and no checkpoint"
            f" ({refused['config.json']}).",
            where=base,
            todo="name the address of the folder in which config.json lies"
            " (weights.download.source), and where its files have other names, list them there:"
            " sha256sum * > SHA256SUMS; if it wants a login, set weights.download.token",
        )
    all_there(sums, set(heads), base, refused)
    files = [
        RemoteFile(name, base + quote(name), head.total, sums.get(name, ""), head.version)
        for name, head in heads.items()
    ]
    lost = {name: f"{why}, {named[name]}" for name, why in refused.items() if name in named}
    notes += [
        f"{name} is not there ({why}), {usual[name]}"
        for name, why in refused.items()
        if name not in named and usual[name]
    ]
    return Listing(f"url:{base}", "", files, requests.host, requests.headers, lost, notes)


def of_folder(folder: Path, sums: Optional[dict[str, str]]) -> Listing:
    """All files below a folder but hidden ones and checksums. Raises InputError, ActionError."""
    if not folder.is_dir():
        raise InputError(
            "there is no such folder.",
            where=str(folder).partition("?")[0],  # an address without its scheme may have a token
            todo="mend weights.download.source: a hub's name (modelscope, huggingface),"
            " http(s)://HOST/FOLDER, or a folder of this machine",
        )
    within = _within(folder)
    if sums is None:
        sums = _sums_of_folder(folder, within)
    files, lost, notes = [], {}, []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name in NAMES or any(part.startswith(".") for part in name.split("/")):
            continue
        if path.is_symlink() and path.is_dir():
            notes.append(f"{name} is a link to a folder, which is not followed")
        elif path.is_file() and not _inside(path, within):
            lost[name] = f"a link that leads out of the folder, to {path.resolve()}"
        elif path.is_file():
            real, status = path.resolve(), path.stat()
            version = f"mtime:{status.st_mtime_ns}-{status.st_size}"
            files.append(
                RemoteFile(name, real.as_uri(), status.st_size, sums.get(name, ""), version)
            )
        elif path.is_symlink():
            lost[name] = "a link that leads to no file"
        elif not path.is_dir():
            lost[name] = "no regular file"
    all_there(sums, {file.name for file in files}, str(folder), lost)
    return Listing(f"folder:{folder.absolute()}", "", files, lost=lost, notes=notes)


def all_there(
    sums: Collection[str], found: Collection[str], where: str, why: Mapping[str, str]
) -> None:
    """Raises ActionError: the source has not all files that the checksums name.

    why: what is known of those that are not there.
    """
    missing = sorted(set(sums) - set(found) - set(NAMES))
    if missing:
        told = [f"{name} ({why[name]})" if name in why else name for name in missing[:3]]
        raise ActionError(
            f"lacks {len(missing)} files that the checksums name: {', '.join(told)}.",
            where=where,
            todo="complete it, or make the checksums anew: each line has a file's name as it is"
            " below the source",
        )


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


def _sums_of_url(base: str, requests: Requests) -> dict[str, str]:
    for name in NAMES:
        text = _text(base + name, requests)
        if text is not None:
            return parse_sums(text, base + name)
    return {}


def _sums_of_folder(folder: Path, within: Sequence[Path]) -> dict[str, str]:
    for name in NAMES:
        if (folder / name).is_file() and _inside(folder / name, within):
            return read_sums(folder / name, "mend it, or give --checksums FILE")
    return {}


def _shards(base: str, requests: Requests) -> set[str]:
    text = _text(base + INDEX, requests)
    if text is None:
        return set()
    try:
        return set(map(str, parsed(text)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ActionError("has no weight_map.", where=base + INDEX) from error


def _modules(base: str, requests: Requests) -> dict[str, str]:
    """Python files that the configuration names as the model's code, with who names them."""
    text = _text(base + "config.json", requests)
    try:
        told: Any = parsed(text or "{}").get("auto_map") or {}
        classes = list(told.values())
    except (ValueError, AttributeError):
        return {}  # is told when it is read as a configuration
    found = {}
    flat = [name for given in classes for name in (given if isinstance(given, list) else [given])]
    for one in flat:
        module, _, name = one.rpartition(".") if isinstance(one, str) else ("", "", "")
        if module and name and "--" not in module:  # REPOSITORY--MODULE.CLASS lies elsewhere
            found[f"{module.replace('.', '/')}.py"] = "config.json names it in auto_map"
    return found


def _text(url: str, requests: Requests) -> Optional[str]:
    """A small file's text, None when there is none."""
    try:
        answer = requests.open(url)
    except RefusedError as error:
        if error.status in _NONE:
            return None
        raise
    data = answer.read(_SMALL)
    return None if "html" in answer.content_type else data.decode("utf-8", "replace")


def _within(folder: Path) -> list[Path]:
    """Where its files may lie: in it; of a snapshot in a hub's cache, in the blobs beside too."""
    real = folder.resolve()
    is_snapshot = real.parent.name == "snapshots"
    return [real, real.parents[1] / "blobs"] if is_snapshot else [real]


def _inside(path: Path, within: Sequence[Path]) -> bool:
    return any(place in path.resolve().parents for place in within)
