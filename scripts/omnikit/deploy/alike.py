"""Whether all servers that run serve with the same: weights, tokenizer, template, engine, settings.

Files are compared by the hashes that their hosts' agents make, running processes by their command
lines, and what only a server itself knows (its release, how it splits text) by asking it.
"""

from __future__ import annotations

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterator, Mapping, Optional, Union

from hostkit.access.service import Service
from hostkit.base.errors import ToolkitError
from hostkit.checks import serving
from omnikit.access import targets
from omnikit.checks.fleet_checks import by_value, listed, short
from omnikit.config.schema import Settings
from omnikit.deploy.smoke_test import Check
from omnikit.fleet import direct_ssh
from omnikit.plan.types import HostPlan, NodePlan, Plan, ServerPlan

# Subjects of the job "serving" -> what people call them.
_FILES = {
    "weights": "weights",
    "model": "configuration of the model",
    "tokenizer": "tokenizer",
    "template": "chat template",
}
# What servers say of themselves -> what people call it.
_TOLD = {
    "version": "engine's release",
    "tokens": "tokens of a text",
    "chat_tokens": "tokens of a chat",
    "block_size": "block size of the KV cache",
    "cache_dtype": "type of the KV cache",
}
_NOTHING = "does not say"  # 404: an engine of another kind or age
_PROBE = "Straße, naïve, 预填充与解码; 3.14159 == x[i]\t{'a': None}\n"
_CACHE = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

Told = dict[str, Optional[str]]  # None: no answer


def checks(plan: Plan, settings: Settings) -> list[Check]:
    """Ask all hosts and servers, and compare."""
    hosts = [host for host in plan.hosts if any(n.servers for n in plan.on_host(host.name))]
    services = targets.servers(plan.nodes, settings)
    with ThreadPoolExecutor(max_workers=len(hosts) + min(64, len(services))) as pool:
        jobs = {host.name: pool.submit(_ask_host, plan, host, settings) for host in hosts}
        asked = {
            name: pool.submit(_ask_server, service, plan.served_name, settings)
            for name, service in services.items()
        }
        found = {name: job.result() for name, job in jobs.items()}
        return judge(plan, settings, found, {name: one.result() for name, one in asked.items()})


def judge(
    plan: Plan,
    settings: Settings,
    found: Mapping[str, Union[dict[str, Any], str]],
    told: Mapping[str, Told],
) -> list[Check]:
    """All comparisons; what nobody knows is left out.

    found: by host, the result of its job "serving", or why there is none. told: by server.
    """
    good = {name: one for name, one in found.items() if not isinstance(one, str)}
    made = [Check(f"host {n}", False, one) for n, one in found.items() if isinstance(one, str)]
    return [*made, *_files(plan, good), *_of_servers(told), *_settings(plan, settings, good)]


def _ask_host(plan: Plan, host: HostPlan, settings: Settings) -> Union[dict[str, Any], str]:
    """The result of the job "serving", or why there is none."""
    names = {name for node in plan.on_host(host.name) for name in _names(node)}
    parameters = {
        "work_dir": host.work_dir,
        "model": plan.model_path,
        "flags": sorted(names | set(settings.verify_serving.equal)),
    }
    try:
        with direct_ssh.link(host, settings) as link:
            return link.job("serving", parameters, settings.verify_serving.timeout_s)
    except ToolkitError as error:
        return str(error)


def _names(node: NodePlan) -> Iterator[str]:
    words = [*node.command, *(word for server in node.servers for word in server.own_args)]
    for word in words:
        if word.startswith("--"):
            yield word[2:].partition("=")[0].replace("_", "-")


def _ask_server(service: Service, model: str, settings: Settings) -> Told:
    """What a server says of itself."""
    timeout_s = settings.verify_serving.timeout_s

    def ask(path: str, body: Optional[dict[str, Any]] = None) -> Union[Optional[str], Any]:
        """The answer as data or text; _NOTHING where it has no such path; None: no answer."""
        answer = service.request(path, timeout_s=timeout_s, body=body)
        if answer.status == 200:
            return answer.json() or answer.text
        return _NOTHING if 400 <= answer.status < 500 else None

    version = ask("/version")
    text = ask("/tokenize", {"model": model, "prompt": _PROBE})
    messages = [{"role": "system", "content": _PROBE}, {"role": "user", "content": _PROBE}]
    chat = ask("/tokenize", {"model": model, "messages": messages})
    metrics = ask("/metrics")
    cache = _CACHE.search(metrics) if isinstance(metrics, str) else None
    labels = dict(_LABEL.findall(cache[1])) if cache else {}
    return {
        "version": version.get("version") if isinstance(version, dict) else version,
        "tokens": _hashed(text),
        "chat_tokens": _hashed(chat),
        "block_size": labels.get("block_size"),
        "cache_dtype": labels.get("cache_dtype"),
    }


def _hashed(answer: Any) -> Any:
    """A hash over the tokens of an answer."""
    if not isinstance(answer, dict):
        return answer
    return hashlib.sha256(json.dumps(answer.get("tokens")).encode()).hexdigest()


def _files(plan: Plan, found: Mapping[str, Mapping[str, Any]]) -> Iterator[Check]:
    """Model files by host."""
    for name, one in found.items():
        if one["why"] and any(other["files"] for other in found.values()):
            yield Check("model's files", False, f"host {name}: {one['why']}")
    there = {name: one["files"] for name, one in found.items() if one["files"]}
    who = {name: f"{name} ({listed(_servers_on(plan, name))})" for name in there}
    for subject, title in _FILES.items():
        hashes: dict[str, dict[str, str]] = {n: files[subject] for n, files in there.items()}
        if not any(hashes.values()):
            continue
        files = sorted({file for own in hashes.values() for file in own})
        odd = [
            _different({who[n]: own.get(file, "not there") for n, own in hashes.items()}, file)
            for file in files
        ]
        wrong = [text for text in odd if text]
        whole = hashlib.sha256(json.dumps(hashes[min(hashes)], sort_keys=True).encode())
        same = f"{short(whole.hexdigest())} on {_count(len(hashes), 'host')}"
        more = f"; and {len(wrong) - 1} files more" if len(wrong) > 1 else ""
        yield Check(title, not wrong, wrong[0] + more if wrong else same)


def _servers_on(plan: Plan, host: str) -> list[str]:
    return [server.name for node in plan.on_host(host) for server in node.servers]


def _different(values: Mapping[str, str], what: str) -> str:
    """Who has which value, the fewest first; "" where all have one."""
    groups = by_value(values)
    if len(groups) < 2:
        return ""
    ranked = sorted(groups.items(), key=lambda item: len(item[1]))
    return f"{what} differs: " + "; ".join(f"{short(v)} on {listed(own)}" for v, own in ranked)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _of_servers(told: Mapping[str, Told]) -> Iterator[Check]:
    """What servers said of themselves."""
    for key, title in _TOLD.items():
        values = {name: one[key] for name, one in told.items() if one[key] is not None}
        known = {name: str(value) for name, value in values.items()}
        if not set(known.values()) - {_NOTHING}:
            continue
        wrong = _different(known, title)
        same = f"{short(min(known.values()))} on {_count(len(known), 'server')}"
        yield Check(title, not wrong, wrong or same)


def _settings(
    plan: Plan, settings: Settings, found: Mapping[str, Mapping[str, Any]]
) -> Iterator[Check]:
    """Command lines of running servers, against the plan and against each other."""
    running: dict[str, dict[str, str]] = {}
    for one in found.values():
        running.update({name: flags for name, flags in one["servers"].items() if flags})
        if one["other"]:
            text = f"{listed(one['other'])}: started with files of another deployment"
            yield Check("one deployment", False, text)
    wrong: list[str] = []
    for node in plan.nodes:
        for server in node.servers:
            wrong += _as_planned(node, server, running.get(server.name, {}))
    for name in settings.verify_serving.equal:
        values = {who: flags.get(name, "not given") for who, flags in running.items()}
        wrong += filter(None, [_different(values, f"--{name}")])
    if running:
        same = f"as planned on {_count(len(running), 'server')}"
        yield Check("settings", not wrong, "; ".join(wrong[:4]) or same)


def _as_planned(node: NodePlan, server: ServerPlan, has: Mapping[str, str]) -> Iterator[str]:
    """What a server runs with that is planned otherwise; has: {} where that is not known."""
    planned = serving.flags(node.argv(server), _names(node)) if has else {}
    for name, wanted in planned.items():
        if name not in has:
            yield f"{server.name} runs without --{name}, planned is {wanted}"
        elif has[name] != wanted and "${" not in wanted:  # which the host fills in
            yield f"{server.name} runs with --{name} {_shown(has[name], wanted)}"


def _shown(value: str, wanted: str) -> str:
    """A value beside the planned one; of JSON, the first member that differs."""
    try:
        mine, planned = json.loads(value), json.loads(wanted)
    except ValueError:
        return f"{value}, planned is {wanted}"
    path = []
    while isinstance(mine, dict) and isinstance(planned, dict):
        keys = [key for key in {**planned, **mine} if mine.get(key) != planned.get(key)]
        if not keys:
            break
        path.append(keys[0])
        mine, planned = mine.get(keys[0]), planned.get(keys[0])
    at = f"{'.'.join(path)}: " if path else ""
    return f"{at}{json.dumps(mine)}, planned is {json.dumps(planned)}"
