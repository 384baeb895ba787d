"""Whom the toolkit's own requests go to, with what they need: addresses, certificates, keys."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Iterable, Optional

from hostkit.access.service import Service
from hostkit.base.errors import InputError
from hostkit.base.redact import Hidden
from omnikit.config.config import read_secret
from omnikit.config.schema import Secret, Settings
from omnikit.plan.types import NodePlan, Plan

# Keys from where the settings say: the clients' for the proxy, and that of the servers.

PROXY_FILE = "pd_keys.lua"
API_KEYS, INTERNAL_KEY = "proxy.api_keys", "proxy.internal_key"
# A bearer token of RFC 6750, long enough that nobody finds it by trying.
_KEY = re.compile(r"[A-Za-z0-9._~+/-]{20,512}={0,2}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
_FORM = "a key has 20 to 512 letters, digits and . _ ~ + / -, for example of: openssl rand -hex 32"


def named(settings: Settings) -> dict[str, str]:
    """The clients' keys by name, in their order; none where the proxy asks for no key."""
    secret = settings.proxy.api_keys
    if secret is None:
        return {}
    place = _place(secret, API_KEYS)
    found: dict[str, str] = {}
    for number, line in enumerate(read_secret(secret, API_KEYS).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, _, key = (part.strip() for part in text.partition(":"))
        wrong = None
        if not _NAME.fullmatch(name) or not key:
            wrong = "expected NAME: KEY"
        elif not _KEY.fullmatch(key):
            wrong = f"the key of {name} is malformed: {_FORM}"
        elif name in found or key in found.values():
            wrong = f"{name}: this name or this key stands twice"
        if wrong:
            raise InputError(f"{wrong}.", where=f"{place}:{number}", todo=f"mend {API_KEYS}")
        found[name] = key
    if not found:
        raise InputError("it names no key.", where=place, todo="write lines NAME: KEY")
    return found


def internal(settings: Settings) -> str:
    """The key of the servers themselves; "": they ask for none."""
    secret = settings.proxy.internal_key
    if secret is None:
        return ""
    key = read_secret(secret, INTERNAL_KEY).strip()
    if not _KEY.fullmatch(key):
        raise InputError(
            f"what is there is no key: {_FORM}.",
            where=_place(secret, INTERNAL_KEY),
            todo="make one",
        )
    return key


def _place(secret: Secret, setting: str) -> str:
    return str(secret.file or (f"the variable {secret.variable}" if secret.variable else setting))


def proxy_file(settings: Settings) -> Optional[Hidden]:
    """pd_keys.lua for the proxy: digests of the clients' keys, and the servers' key as it is."""
    keys, internal_key = named(settings), internal(settings)
    if not keys and not internal_key:
        return None
    digests = [
        f'["{name}"] = "{hashlib.sha256(key.encode()).hexdigest()}"' for name, key in keys.items()
    ]
    return Hidden(
        f'return {{ digests = {{ {", ".join(digests)} }}, internal = "{internal_key}" }}\n'
    )


def in_url(address: str) -> str:
    """An address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address


def url(plan: Plan, settings: Settings) -> str:
    """Where clients come in."""
    address, port = plan.entry()
    secure = plan.proxy is not None and settings.proxy.tls.certificate is not None
    host = in_url(settings.proxy.tls.name or address) if secure else in_url(address)
    return f"{'https' if secure else 'http'}://{host}:{port}"


def ca(settings: Settings) -> Optional[str]:
    """The file by which the proxy's certificate is verified; None: the system's authorities."""
    found = settings.proxy.tls.ca
    return str(Path(found).expanduser().absolute()) if found else None


def entry(plan: Plan, settings: Settings) -> Service:
    """Where clients come in: the proxy, else the first server."""
    if plan.proxy is None:
        return server(plan.nodes[0], plan.nodes[0].servers[0].api_port, settings)
    known = named(settings)
    key = next(iter(known.values()), "")  # the first is the toolkit's own
    return Service(url(plan, settings), key, ca(settings), API_KEYS)


def server(node: NodePlan, port: int, settings: Settings) -> Service:
    """One API server, asked by itself."""
    address = f"http://{in_url(node.address)}:{port}"
    return Service(address, internal(settings), setting=INTERNAL_KEY)


def servers(nodes: Iterable[NodePlan], settings: Settings) -> dict[str, Service]:
    """The API servers of some nodes, by name."""
    return {
        one.name: server(node, one.api_port, settings) for node in nodes for one in node.servers
    }


def takes_several(proxy: Service, timeout_s: float) -> bool:
    """Whether a proxy answers each of several prompts in one request: the toolkit's own does, which
    has /ready. Others give the hand-over of the first prompt to all, and answer 404 there, or 405
    (vllm-router).
    """
    return proxy.request("/ready", timeout_s=timeout_s).status not in (404, 405)
