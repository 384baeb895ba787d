"""Who gets the load (an environment's entry, a server, a URL), and where its generator runs."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Sequence

from hostkit.access.service import Service
from hostkit.base import run
from hostkit.base.errors import InputError
from hostkit.base.health import Answer
from hostkit.containers import profile
from omnikit.access import targets
from omnikit.config.config import Config
from omnikit.config.layers import resolve_path
from omnikit.config.schema import Settings
from omnikit.deploy import status
from omnikit.fleet import direct_ssh
from omnikit.load.levels import CHAT, COMPLETIONS, Load, Target
from omnikit.plan import containers as plan_containers
from omnikit.plan.types import HostPlan, Plan
from omnikit.topology.checks import nearest
from omnikit.topology.ports import engine_places

# Where the load generator runs: here if the engine is here, else where the proxy is.

DRIVER = Path(__file__).resolve().parent / "driver.py"
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
    def opened(self, service: Service) -> Iterator[tuple[Mapping[str, str], Optional[Path]]]:
        """Environment and standard input for a load on this service.

        Its key goes by the environment, to another machine or a container with the driver's text:
        never by words, which everybody there can read. A user's own key goes to nobody.
        """
        own = {"OPENAI_API_KEY": service.key}
        if self.stdin is None:
            own.update({"SSL_CERT_FILE": service.ca} if service.ca else {})
            yield {**self.env, **own}, None
            return
        driver = self.stdin.read_text(encoding="utf-8")
        ca = Path(service.ca).read_text(encoding="ascii") if service.ca else ""
        with tempfile.TemporaryDirectory(prefix="omnikit-") as private:
            file = Path(private) / "driver.py"
            file.touch(mode=0o600)
            file.write_text(_WITH_ACCESS.format(own, ca, driver), encoding="utf-8")
            yield self.env, file


# Arguments: variables, certificates by which the service is verified, the driver's text.
_WITH_ACCESS = """import os, tempfile
os.environ.update({!r})
ca = tempfile.NamedTemporaryFile(mode="w", suffix=".pem")
ca.write({!r})
ca.flush()
if os.path.getsize(ca.name):
    os.environ["SSL_CERT_FILE"] = ca.name
exec(compile({!r}, "load_driver.py", "exec"))
"""


@contextmanager
def find_place(config: Config, plan: Plan, target: Target) -> Iterator[Place]:
    """The place for this environment: here only where the tokenizer is here too."""
    here = _here(config)
    if here is not None and (plan.local or Path(target.tokenizer).is_dir()):
        yield Place("this machine", (here, str(DRIVER)), ENV)
        return
    host, container = _there(plan)
    words = tuple(_words(config, container, host))
    name = f"container {container} on {host.name}" if container else f"host {host.name}"
    with direct_ssh.link(host, config.settings) as link:
        yield Place(name, words, link.env, DRIVER, link)


def check_place(place: Place, target: Target) -> None:
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


def _words(config: Config, container: str, host: HostPlan) -> Iterator[str]:
    """The engine's Python on a host or in its container, with the driver from standard input."""
    python = engine_places(config.settings, lambda text, *_: host.path(text))[1]
    words = ["env", *(f"{key}={value}" for key, value in ENV.items()), python, "-"]
    if container:
        engine = config.settings.container.engine
        yield from ("sh", "-c", _ANY_ENGINE, "sh") if engine == "auto" else (engine,)
        yield from ("exec", "-i", container)
        found = plan_containers.profile(config.settings, check=False)
        words = profile.words(found, f"container {container}", words)
    yield from words


_URL = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[^/:\s\[\]@?#]+)(:[0-9]{1,5})?(/v1)?/?")


def find(
    config: Config,
    plan: Plan,
    *,
    instance: Optional[str] = None,
    url: Optional[str] = None,
    model: Optional[str] = None,
    tokenizer: Optional[str] = None,
) -> Target:
    """The target that the options name. Raises InputError."""
    if url is not None:  # a stranger: it gets no key of ours, only one meant for any such service
        key = os.environ.get("OPENAI_API_KEY", "")
        service = Service(_base(url), key, targets.ca(config.settings), "variable OPENAI_API_KEY")
        name = service.url
    elif instance is not None:
        name, service = f"{plan.environment} {instance}", _server(plan, config.settings, instance)
    else:
        name, service = plan.environment, targets.entry(plan, config.settings)
    trusted = bool(config.settings.server.args.get("trust-remote-code"))
    folder = tokenizer or plan.model_path
    return Target(name, service, model or plan.served_name, folder, trusted)


def _base(url: str) -> str:
    found = _URL.fullmatch(url)
    if not found or not _addresses(found[2], found[3] or ":80"):
        raise InputError(
            f"found {url!r}, expected http://HOST:PORT or https, with a port up to 65535.",
            where="--url",
            todo="for example: --url http://127.0.0.1:8300",
        )
    return f"{found[1]}://{found[2]}{found[3] or ''}"


def _addresses(host: str, port: str) -> bool:
    """Whether a server can have this name and this port."""
    try:
        host.strip("[]").encode("idna")
    except UnicodeError:
        return False
    return 0 < int(port[1:]) < 65536


def _server(plan: Plan, settings: Settings, instance: str) -> Service:
    """An instance's first server, or the server with this name."""
    places = {s.name: (n, s.api_port) for n in plan.nodes for s in n.servers}
    for node in plan.nodes:
        if node.servers:
            places.setdefault(node.name, (node, node.servers[0].api_port))
    if instance not in places:
        near = nearest(instance, list(places))
        raise InputError(
            f"there is no server {instance!r}" + (f", is it {near!r}?" if near else "."),
            where="--instance",
            todo=f"one of {', '.join(places)}; the proxy is the default",
        )
    return targets.server(*places[instance], settings)


def check(config: Config, target: Target, load: Load, *, ours: bool) -> None:
    """Raise InputError unless the target serves the model and takes requests of this length.

    ours: it belongs to the environment, so that its state can be told.
    """
    timeout_s = config.settings.smoke_test.timeout_s
    answer = target.service.request("/v1/models", timeout_s=timeout_s)
    if answer.status != 200 or not isinstance(answer.json().get("data"), list):
        raise _silent(config, target, answer, ours)
    models = {str(one.get("id")): one for one in answer.listed("data")}
    if target.model not in models:
        raise InputError(
            f"{target.url} serves {', '.join(models) or 'no model'}, not {target.model!r}.",
            where="--model",
            todo=f"--model {next(iter(models))}" if models else "invoke status",
        )
    longest = models[target.model].get("max_model_len")
    wanted = load.input_tokens + load.output_tokens
    if isinstance(longest, int) and wanted > longest:
        raise InputError(
            f"{load.input_tokens} tokens in and {load.output_tokens} out are {wanted}, but"
            f" {target.model} takes {longest} in all.",
            where="--input, --output",
            todo="ask for less, or raise server.args.max-model-len and deploy",
        )


def _silent(config: Config, target: Target, answer: Answer, ours: bool) -> InputError:
    """Nothing serves there: with what invoke status would say."""
    why = f"status {answer.status}: {answer.text[:200]}" if answer.status else answer.text
    said = f"{target.url} does not serve ({why})."
    if not ours:
        return InputError(said, where="--url", todo="check the address; is the server up?")
    state = status.as_text(status.collect(config))
    return InputError(f"{said}\n{state}", where=config.environment, todo="make deploy, then again")


def why_not(config: Config, target: Target, load: Load) -> str:
    """What the target says to one request of the load, after none of them was answered."""
    words = "word " * load.input_tokens
    body: dict[str, Any] = {"model": target.model, "max_tokens": load.output_tokens}
    body.update({"messages": [{"role": "user", "content": words}]} if load.chat else {})
    body.update({} if load.chat else {"prompt": words})
    path = CHAT if load.chat else COMPLETIONS
    timeout_s = config.settings.smoke_test.timeout_s
    answer = target.service.request(path, timeout_s=timeout_s, body=body)
    if answer.status == 200:
        return "one request by hand is answered now"
    said = answer.text[:300].strip()
    return f"status {answer.status}: {said}" if answer.status else said
