"""Asks the source that the settings name for its files, again when the network fails."""

from __future__ import annotations

import base64
import http.client
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

from omnikit.errors import InputError
from omnikit.health import wait_until
from omnikit.weights import (
    download_address,
    download_checksums,
    download_faults,
    download_folder,
    download_huggingface,
    download_modelscope,
    download_place,
)
from omnikit.weights.download_request import Requests
from omnikit.weights.download_types import (
    Listing,
    Patience,
    RemoteFile,
    TransientError,
    host_of,
)

HUBS: dict[str, Callable[..., Listing]] = {
    "modelscope": download_modelscope.listing,
    "huggingface": download_huggingface.listing,
}
Asked = TypeVar("Asked")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def listing(
    given: Any, patience: Patience, token: Optional[str], say: Callable[[str], None]
) -> Listing:
    """The files of the source in the settings weights.download. Raises InputError, ActionError."""
    sums = None
    if given.checksums:
        path = download_place.expanded(given.checksums, "weights.download.checksums")
        sums = download_checksums.read(path, "mend weights.download.checksums (--checksums)")
    hub = given.source in HUBS
    where = given.endpoint or given.source if hub else given.source
    return _patiently(
        lambda: _listing(given, patience, token, sums), patience, say, where=where, hub=hub
    )


def text_of(
    file: RemoteFile, listed: Listing, patience: Patience, say: Callable[[str], None]
) -> bytes:
    """The content of a small file, in memory. Raises ActionError."""

    def ask() -> bytes:
        requests = Requests(patience.timeout_s, listed.host, listed.headers, listed.hub)
        answer = requests.open(file.url)
        try:
            data: bytes = answer.stream.read()
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(str(error) or type(error).__name__) from error
        finally:
            answer.close()
        return data

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
                raise download_faults.given_up(error, where, attempt, hub=hub) from error
            pause_s = max(delay_s, error.wait_s)
            say(f"{error}; next attempt in {pause_s:.0f} s")
            wait_until(lambda: False, pause_s, pause_s)
        attempt, delay_s = attempt + 1, delay_s * 2


def check(given: Any) -> None:
    """Raises InputError: the settings name no source that could be asked."""
    if given.source not in HUBS:
        download_place.check(given.source)
        if given.repository:
            raise InputError(
                f"repository is set, but {download_faults.plain(given.source)} is no hub.",
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


def _listing(
    given: Any, patience: Patience, token: Optional[str], sums: Optional[dict[str, str]]
) -> Listing:
    if given.source in HUBS:
        endpoint = given.endpoint.rstrip("/") if given.endpoint else None
        found = HUBS[given.source](
            given.repository, given.revision, endpoint, token, patience.timeout_s
        )
        return found if sums is None else _with_sums(found, sums)
    if download_place.is_web(given.source):
        base = download_place.address(given.source)
        headers = {"Authorization": _authorization(token)} if token else {}
        requests = Requests(patience.timeout_s, host_of(base), headers, hub=False)
        return download_address.of_url(base, requests, sums)
    return download_folder.of_folder(download_place.folder(given.source), sums)


def folder(given: Any) -> Optional[Path]:
    """The folder that is the source, None for hubs and addresses. Raises InputError."""
    remote = given.source in HUBS or download_place.is_web(given.source)
    return None if remote else download_place.folder(given.source)


def _authorization(token: str) -> str:
    """USER:PASSWORD is HTTP's basic way, anything else a bearer's token."""
    if ":" in token:
        return f"Basic {base64.b64encode(token.encode()).decode()}"
    return f"Bearer {token}"


def _with_sums(found: Listing, sums: dict[str, str]) -> Listing:
    download_checksums.all_there(sums, {file.name for file in found.files}, found.origin, {})
    files = [replace(file, hash=sums.get(file.name, file.hash)) for file in found.files]
    return replace(found, files=files)
