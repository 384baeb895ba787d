"""What a proxy is told, and what each kind of proxy must be able to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Tuple

Address = Tuple[str, int]


@dataclass(frozen=True)
class ProxySpec:
    """One proxy. prefill and decode: (host, port) of each API server, in order.

    run_dir and log_dir are absolute folders on the proxy's host. settings: the section "proxy"
    of the configuration.
    """

    kind: str
    listen_host: str
    listen_port: int
    prefill: tuple[Address, ...]
    decode: tuple[Address, ...]
    run_dir: str
    log_dir: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """The functions behind the interface of omnikit.proxy for one kind of proxy."""

    files: Callable[[ProxySpec, str], dict[str, str]]
    command: Callable[[ProxySpec], list[str]]
    reload_command: Callable[[ProxySpec], Optional[list[str]]]
    check_command: Callable[[ProxySpec], Optional[list[str]]]
    health_path: str
