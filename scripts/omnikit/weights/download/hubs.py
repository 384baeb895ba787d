"""Which files a repository has on Hugging Face or ModelScope: names, sizes, hashes.

The hubs' own libraries list and authenticate; the transfer is ours (transfer.py), so that all
sources are resumed, verified as they come, and counted alike.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import Any, Iterator, Optional

from hostkit.base.errors import ActionError
from omnikit.weights.download import faults
from omnikit.weights.download.types import (
    Listing,
    RemoteFile,
    TransientError,
    checked_name,
    host_of,
)

_MAIN = "master"
_NAMES = "compare weights.download.repository and .revision with the repository's page"


@contextmanager
def _explained(where: str, variable: str, *, token: bool) -> Iterator[None]:
    """A library's error in our words. variable: of the environment, names the hub."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if faults.is_passing(status):
            raise TransientError(f"HTTP {status}") from error
        raise faults.refused(status, where, token=token) from error
    # Before RequestException, which the first of them is too: no fault of the network.
    except (requests.exceptions.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise faults.no_hub(where, variable) from error
    except (requests.RequestException, OSError) as error:
        raise faults.unreachable(error, where, variable) from error


def huggingface(
    repository: str,
    revision: Optional[str],
    endpoint: Optional[str],
    token: Optional[str],
    timeout_s: float,
) -> Listing:
    """All files of a repository at the commit that a revision means now. Large files have a
    SHA-256, small ones git's own hash.

    endpoint: of a mirror; None: HF_ENDPOINT, else huggingface.co. token: None: HF_TOKEN or the
    one that the library has stored. Raises TransientError, ActionError.
    """
    # Late: 0.3 s.
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, HFValidationError
    from huggingface_hub.utils import build_hf_headers

    api = HfApi(endpoint=endpoint, token=token)
    where = faults.plain(f"{api.endpoint}/{repository}")
    headers = build_hf_headers(token=token)
    secret = {name: text for name, text in headers.items() if name.lower() == "authorization"}
    with _explained(where, "HF_ENDPOINT", token=bool(secret)):
        try:
            info = api.model_info(
                repository, revision=revision, files_metadata=True, timeout=timeout_s
            )
        except HFValidationError as error:
            raise ActionError(str(error), where="weights.download.repository") from error
        except GatedRepoError as error:
            # A hidden repository is told as an absent one; gated is 403 for a known account.
            raise faults.refused(403, where, token=bool(secret)) from error
    commit = str(info.sha or revision or "main")
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


def modelscope(
    repository: str,
    revision: Optional[str],
    endpoint: Optional[str],
    token: Optional[str],
    timeout_s: float,
) -> Listing:
    """All files of a repository at a revision, with their SHA-256.

    endpoint: None: MODELSCOPE_DOMAIN, else modelscope.cn. token: None: what "modelscope login" has
    stored. Raises TransientError, ActionError.
    """
    # Late: 0.3 s.
    from modelscope.hub.api import HubApi
    from modelscope.hub.errors import RequestError
    from modelscope.hub.file_download import get_file_download_url

    # It logs each error that it raises; we say it once, and better.
    logging.getLogger("modelscope").setLevel(logging.CRITICAL)
    api = HubApi(endpoint=endpoint, timeout=timeout_s, max_retries=0)
    wanted = revision or _MAIN
    where = faults.plain(f"{api.endpoint}/models/{repository}")
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
