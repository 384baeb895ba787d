"""Which files a ModelScope repository has: names, sizes, SHA-256, by the modelscope library.

The library lists and authenticates; the transfer is ours (download_transfer).
"""

from __future__ import annotations

import logging
from typing import Any, Optional

from omnikit.errors import ActionError
from omnikit.weights import download_faults
from omnikit.weights.download_types import (
    Listing,
    RemoteFile,
    TransientError,
    checked_name,
    host_of,
)

_MAIN = "master"
_NAMES = "compare weights.download.repository and .revision with the repository's page"


def listing(
    repository: str,
    revision: Optional[str],
    endpoint: Optional[str],
    token: Optional[str],
    timeout_s: float,
) -> Listing:
    """All files of a repository at a revision.

    endpoint: None: MODELSCOPE_DOMAIN, else modelscope.cn. token: None: what "modelscope login" has
    stored. Raises TransientError, ActionError.
    """
    # Late: 0.3 s.
    import requests
    import requests.exceptions as faults
    from modelscope.hub.api import HubApi
    from modelscope.hub.errors import RequestError
    from modelscope.hub.file_download import get_file_download_url

    # It logs each error that it raises; we say it once, and better.
    logging.getLogger("modelscope").setLevel(logging.CRITICAL)
    api = HubApi(endpoint=endpoint, timeout=timeout_s, max_retries=0)
    wanted = revision or _MAIN
    where = download_faults.plain(f"{api.endpoint}/models/{repository}")
    cookies = api.get_cookies(access_token=token)
    secret = {}
    if cookies is not None:
        # A cookie's domain has no port, so a mirror at HOST:PORT would not get the library's.
        secret["Cookie"] = "; ".join(f"{cookie.name}={cookie.value}" for cookie in cookies)
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
    # Before RequestException, which the first of them is too: no fault of the network.
    except (faults.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise download_faults.no_hub(where, "MODELSCOPE_DOMAIN") from error
    except faults.SSLError as error:
        raise download_faults.untrusted(error, where) from error
    except faults.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (408, 425, 429) or status >= 500:
            raise TransientError(f"HTTP {status}") from error
        raise download_faults.refused(status, where, token=bool(secret)) from error
    except (faults.MissingSchema, faults.InvalidSchema, faults.InvalidURL) as error:
        raise download_faults.no_address(where, "MODELSCOPE_DOMAIN") from error
    except (requests.RequestException, OSError) as error:
        raise TransientError(f"{where}: {download_faults.cause(error)}") from error
    files = []
    for one in found:
        if one.get("Type") != "tree":
            url = get_file_download_url(repository, one["Path"], wanted, api.endpoint)
            files.append(_file(one, where, url))
    return Listing(f"modelscope:{repository}", wanted, files, host_of(api.endpoint), secret)


def _file(one: dict[str, Any], where: str, url: str) -> RemoteFile:
    digest = str(one.get("Sha256") or "")
    size = one.get("Size")
    return RemoteFile(
        checked_name(one["Path"], where),
        url,
        size if isinstance(size, int) else None,
        f"sha256:{digest.lower()}" if len(digest) == 64 else "",
        f"revision:{one.get('Revision')}" if one.get("Revision") else "",
    )
