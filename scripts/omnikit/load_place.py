"""Where the load generator runs: here if the engine is here, else where the proxy is."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Mapping, Optional, Sequence

from omnikit import direct_ssh, run
from omnikit.config import Config
from omnikit.errors import InputError
from omnikit.load_options import Target
from omnikit.plan_types import HostPlan, Plan
from omnikit.topology import resolve_path
from omnikit.topology_facts import engine_places

DRIVER = Path(__file__).resolve().parent / "load_driver.py"
# Servers are asked directly whatever proxy the variables name, and nothing is looked up outside.
ENV = {
    "no_proxy": "*",
    "NO_PROXY": "*",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
# Arguments: the words of a container engine. For container.engine auto.
_ANY_ENGINE = 'command -v docker >/dev/null && exec docker "$@"; exec podman "$@"'


@dataclass(frozen=True)
class Place:
    """name: for people. before: the words before the generator's arguments. env: of this process.

    stdin: the driver's text, where its file is not.
    """

    name: str
    before: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: Optional[Path] = None
    link: Optional[direct_ssh.Link] = None

    def argv(self, arguments: Sequence[str]) -> list[str]:
        """The whole command."""
        words = [*self.before, *arguments]
        return words if self.link is None else self.link.argv(*words)

    def shown(self, arguments: Sequence[str]) -> str:
        """The command as a line that can be pasted into a shell."""
        told = {key: value for key, value in self.env.items() if key in ENV}
        line = run.show(self.argv(arguments), told)
        return line if self.stdin is None else f"{line} < {run.show([self.stdin])}"


@contextmanager
def find(config: Config, plan: Plan, target: Target) -> Iterator[Place]:
    """The place for this environment: here only where the tokenizer is here too."""
    here = _here(config)
    whole = all(host.settings.connection == "local" for host in plan.hosts)
    if here is not None and (whole or Path(target.tokenizer).is_dir()):
        yield Place("this machine", (here, str(DRIVER)), ENV)
        return
    host, container = _there(plan)
    local = host.settings.connection == "local"
    words = tuple(_words(config, container, local))
    name = f"container {container} on {host.name}" if container else f"host {host.name}"
    if local:
        yield Place(name, words, {}, DRIVER)
        return
    with direct_ssh.link(host, config.settings) as link:
        yield Place(name, words, link.env, DRIVER, link)


def check(place: Place, target: Target) -> None:
    """Raise InputError when the tokenizer is not where the generator runs, as far as we see."""
    if place.stdin is None and not Path(target.tokenizer).is_dir():
        raise InputError(
            f"there is no folder {target.tokenizer} with the model's tokenizer.",
            where="--tokenizer",
            todo="name a folder with tokenizer.json of the served model: --tokenizer DIR",
        )


def _here(config: Config) -> Optional[str]:
    """The engine's Python on this machine, if it is here."""
    venv = config.settings.engine.venv
    python = Path(resolve_path(venv, local=True)) / "bin" / "python" if venv else None
    return str(python) if python is not None and python.exists() else None


def _there(plan: Plan) -> tuple[HostPlan, str]:
    """The proxy's host, else the first server's; and the container there that has the engine."""
    proxy = plan.proxy
    name = plan.nodes[0].host if proxy is None else proxy.host
    # The proxy's container has the image too, but servers have the model for certain.
    containers = [node.container for node in plan.on_host(name)]
    containers += [] if proxy is None else [proxy.container]
    (host,) = [host for host in plan.hosts if host.name == name]
    return host, containers[0]


def _words(config: Config, container: str, local: bool) -> Iterator[str]:
    """The engine's Python on a host or in its container, with the driver from standard input."""
    if container:
        engine = config.settings.container.engine
        yield from ("sh", "-c", _ANY_ENGINE, "sh") if engine == "auto" else (engine,)
        yield from ("exec", "-i", container)
    yield "env"
    yield from (f"{key}={value}" for key, value in ENV.items())
    yield engine_places(config.settings, lambda text, *_: resolve_path(text, local))[1]
    yield "-"
