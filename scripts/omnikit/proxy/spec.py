"""What a proxy is told, what each kind of proxy must be able to say, where its programs are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Tuple

from omnikit.proxy import values

# Where Linux systems put nginx and its modules, and what we name when nobody says.

# The first one is Debian's and Ubuntu's.
NGINX_PLACES = ("/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx")
SOURCE_BUILD_NGINX = "/usr/local/nginx/sbin/nginx"
# omni-infer's image, built with this as --sbin-path; packages of later releases have it in PATH.
OMNI_NGINX = ("/usr/local/nginx/nginx", "nginx")
OMNI_KINDS = ("omni-nginx", "omni-proxy")
OMNI_MODULES = "/usr/local/nginx/modules"
MODULE_PLACES = (
    "/usr/lib/nginx/modules",
    "/usr/lib64/nginx/modules",
    "/usr/share/nginx/modules",
    "/etc/nginx/modules",
    "/usr/local/nginx/modules",
    "/usr/local/lib/nginx/modules",
)
# In the order of loading: the second one needs the first.
LUA_MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")

ROUTER_REQUIREMENT = "vllm-router==0.1.17"
ROUTER_PROGRAM = "bin/vllm-router"

Address = Tuple[str, int]


@dataclass(frozen=True)
class ProxySpec:
    """One proxy. prefill and decode: (host, port) of each API server, in order.

    run_dir and log_dir are absolute folders on the proxy's host. settings: the section "proxy"
    of the configuration, max_num_seqs and instances (see ProxyPlan). metrics: servers that answer
    /metrics. address: where servers reach the proxy, if listen_host does not say. version: a word
    for what all its servers run, see omnikit.plan.connectors.
    """

    kind: str
    listen_host: str
    listen_port: int
    prefill: tuple[Address, ...]
    decode: tuple[Address, ...]
    run_dir: str
    log_dir: str
    settings: Mapping[str, Any]
    metrics: tuple[Address, ...] = ()
    address: str = ""
    version: str = ""


@dataclass(frozen=True)
class Kind:
    """The functions behind the interface of omnikit.proxy for one kind of proxy.

    programs: where its program is looked for if the settings do not say; none: command() knows.
    metrics_path: where it tells Prometheus of itself; None: nowhere.
    """

    files: Callable[[ProxySpec, str], dict[str, str]]
    command: Callable[[ProxySpec], list[str]]
    reload_command: Callable[[ProxySpec], Optional[list[str]]]
    check_command: Callable[[ProxySpec], Optional[list[str]]]
    health_path: str
    programs: tuple[str, ...] = ()
    metrics_path: Optional[str] = None


def nginx_kind(
    files: Callable[[ProxySpec, str], dict[str, str]], nginx: str, programs: tuple[str, ...] = ()
) -> Kind:
    """A kind that is nginx. nginx: its program where the settings name none."""

    def command(spec: ProxySpec) -> list[str]:
        """nginx in the foreground (the file says so); what is wrong at start goes to stderr."""
        program = spec.settings.get("nginx") or nginx
        run_dir = values.path("run_dir", spec.run_dir).rstrip("/") or "/"
        return [str(program), "-e", "stderr", "-p", f"{run_dir}/", "-c", "nginx.conf"]

    def reload_command(spec: ProxySpec) -> list[str]:
        """New workers take the new files, old ones finish their requests."""
        return [*command(spec), "-s", "reload"]

    def check_command(spec: ProxySpec) -> list[str]:
        """nginx's own look at the written files."""
        return [*command(spec), "-t", "-q"]

    return Kind(files, command, reload_command, check_command, "/health", programs)
