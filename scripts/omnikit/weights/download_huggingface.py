"""Which files a Hugging Face repository has: names, sizes, hashes, by huggingface_hub.

The library lists and authenticates; the transfer is ours (download_transfer), so that all sources
are resumed, verified and counted alike. Large files have a SHA-256, small ones git's own hash.
"""

from __future__ import annotations

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


def listing(
    repository: str,
    revision: Optional[str],
    endpoint: Optional[str],
    token: Optional[str],
    timeout_s: float,
) -> Listing:
    """All files of a repository at the commit that a revision means now.

    endpoint: of a mirror; None: HF_ENDPOINT, else huggingface.co. token: None: HF_TOKEN or the
    one that the library has stored. Raises TransientError, ActionError.
    """
    # Late: 0.3 s.
    import requests
    import requests.exceptions as faults
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import build_hf_headers

    api = HfApi(endpoint=endpoint, token=token)
    where = download_faults.plain(f"{api.endpoint}/{repository}")
    headers = build_hf_headers(token=token)
    secret = {name: text for name, text in headers.items() if name.lower() == "authorization"}
    try:
        info = api.model_info(repository, revision=revision, files_metadata=True, timeout=timeout_s)
    except HFValidationError as error:
        raise ActionError(str(error), where="weights.download.repository") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (408, 425, 429) or status >= 500:
            raise TransientError(f"HTTP {status}") from error
        # A hidden repository is told as an absent one; gated is 403 for a known account.
        status = 403 if isinstance(error, GatedRepoError) else status
        raise download_faults.refused(status, where, token=bool(secret)) from error
    except (faults.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise download_faults.no_hub(where, "HF_ENDPOINT") from error
    except faults.SSLError as error:
        raise download_faults.untrusted(error, where) from error
    except (faults.MissingSchema, faults.InvalidSchema, faults.InvalidURL) as error:
        raise download_faults.no_address(where, "HF_ENDPOINT") from error
    except (requests.RequestException, OSError) as error:
        raise TransientError(f"{where}: {download_faults.cause(error)}") from error
    commit = str(info.sha or revision or "main")
    files = [
        RemoteFile(
            checked_name(one.rfilename, where),
            hf_hub_url(repository, one.rfilename, revision=commit, endpoint=api.endpoint),
            one.lfs.size if one.lfs else one.size,
            _hash(one),
        )
        for one in info.siblings or []
    ]
    origin = f"huggingface:{repository}"
    return Listing(origin, commit, files, host_of(api.endpoint), secret)


def _hash(one: Any) -> str:
    if one.lfs:
        return f"sha256:{one.lfs.sha256}"
    return f"git:{one.blob_id}" if one.blob_id else ""
