"""Who gets the load: an environment's entry, one server of it, or a URL; and whether it serves."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, Optional

from omnikit import smoke_test, status
from omnikit.config import Config
from omnikit.errors import InputError
from omnikit.health import Answer, request
from omnikit.load_options import CHAT, COMPLETIONS, Load, Target
from omnikit.plan_types import Plan

_URL = re.compile(r"http://(\[[0-9A-Fa-f:.]+\]|[^/:\s\[\]@?#]+)(:[0-9]{1,5})?(/v1)?/?")


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
    name, base = plan.environment, smoke_test.base_url(plan)
    if url is not None:
        name = base = _base(url)
    elif instance is not None:
        name, base = f"{plan.environment} {instance}", _server_url(plan, instance)
    trusted = bool(config.settings.server.args.get("trust-remote-code"))
    folder = tokenizer or plan.model_path
    return Target(name, base, model or plan.served_name, folder, trusted)


def _base(url: str) -> str:
    found = _URL.fullmatch(url)
    if not found or not _addresses(found[1], found[2] or ":80"):
        raise InputError(
            f"found {url!r}, expected http://HOST:PORT, with a port up to 65535.",
            where="--url",
            todo="for example: --url http://127.0.0.1:8300",
        )
    return f"http://{found[1]}{found[2] or ''}"


def _addresses(host: str, port: str) -> bool:
    """Whether a server can have this name and this port."""
    try:
        host.strip("[]").encode("idna")
    except UnicodeError:
        return False
    return 0 < int(port[1:]) < 65536


def _server_url(plan: Plan, instance: str) -> str:
    """The address of an instance's first server, or of the server with this name."""
    places = {s.name: (n.address, s.api_port) for n in plan.nodes for s in n.servers}
    for node in plan.nodes:
        if node.servers:
            places.setdefault(node.name, (node.address, node.servers[0].api_port))
    if instance not in places:
        # Of names that are so short, those with the same first letter are meant.
        alike = [name for name in places if name[:1] == instance[:1]] or list(places)
        near = get_close_matches(instance, alike, n=1, cutoff=0.4)
        raise InputError(
            f"there is no server {instance!r}" + (f", is it {near[0]!r}?" if near else "."),
            where="--instance",
            todo=f"one of {', '.join(places)}; the proxy is the default",
        )
    address, port = places[instance]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def check(config: Config, target: Target, load: Load, *, ours: bool) -> None:
    """Raise InputError unless the target serves the model and takes requests of this length.

    ours: it belongs to the environment, so that its state can be told.
    """
    timeout_s = config.settings.smoke_test.timeout_s
    answer = request(target.url + "/v1/models", timeout_s=timeout_s)
    listed = answer.json() if answer.status == 200 else None
    if not isinstance(listed, dict) or not isinstance(listed.get("data"), list):
        raise _silent(config, target, answer, ours)
    models = {str(one.get("id")): one for one in listed["data"] if isinstance(one, dict)}
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
    answer = request(target.url + path, timeout_s=timeout_s, body=body)
    if answer.status == 200:
        return "one request by hand is answered now"
    said = answer.text[:300].strip()
    return f"status {answer.status}: {said}" if answer.status else said
