"""A plan for people: what would run where, and what differs from what runs now."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import AbstractSet, Any, Mapping

from hostkit.base import run
from hostkit.base.log import give, table
from hostkit.base.redact import REDACTED
from hostkit.nodes import needed
from omnikit.config.config import Config
from omnikit.deploy import deploy, leave, roll
from omnikit.deploy.acts import Options
from omnikit.images import containers, pull
from omnikit.plan import containers as plan_containers
from omnikit.plan.types import HostPlan, Plan
from omnikit.prepare import local_setup, look, ranktables, source_steps
from omnikit.prepare.deployment import ARCHIVE, Deployment, prepare
from omnikit.prepare.source_steps import STEPS
from omnikit.spread import caches
from omnikit.topology.topology import make_plan
from omnikit.versions import image
from omnikit.yaml import redact


def show(
    config: Config,
    *,
    as_json: bool,
    commands: bool = False,
    contents: bool = False,
    asked: bool = False,
    steps: AbstractSet[str] = frozenset(STEPS),
    at_once: bool = False,
) -> int:
    """Print the plan of a configuration. asked: every host is asked now, those over SSH too.

    steps: of a deployment; what others would do is left out. at_once: its option.
    """
    plan = make_plan(config)
    found = local_setup.look(config, plan)
    tables = ranktables.remembered(plan.environment) if ranktables.needed(config, plan) else {}
    deployment = prepare(config, found.inputs, found.proxy, tables, plan)
    if asked:
        deployment.write()
        source = source_steps.look(config, plan, steps, asked=False)
        seen = look.look(deployment)
        source_steps.restarts(seen, source, plan)
        seen.problems += image.problems(config, plan, seen)
        mine = look.of_steps(seen, plan, steps)
        against = deploy.way_against(Options(frozenset(steps), at_once=at_once), source)
        leaving = leave.found(deployment)
        way = roll.AT_ONCE
        if mine.replaces:
            gone = leaving.nodes if leaving else ()
            way = roll.way(deployment, mine, against=against, leaving=gone)
        changes = _seen(seen)
    else:
        changes = {host.name: _changes(deployment, host) for host in plan.hosts}
    known = caches.Caches(plan, config.settings, deployment.files)
    rows = known.look() if asked and known.hosts else []
    if as_json:
        data = {**_as_data(deployment, changes), **(way.as_data() if asked else {})}
        data["caches"] = [asdict(row) for row in rows]
        print(json.dumps(redact.clean(data), indent=1))
        return 0
    print(_as_text(deployment, changes))
    for note in (*config.notes, *plan.notes, *image.notes(config)):
        print(f"note: {note}")
    for step in local_setup.missing(config, plan):
        print(f"before that: {step}")
    if known.hosts:
        print(_caches(deployment, caches.lines(rows)))
    if asked:
        for host, line in source.lines.items():
            print(f"{host}: source: {line}")
        for name, reason in seen.reasons.items():
            print(f"{name}, why: {reason}")
        if leaving:
            why = leave.interrupts(leaving, deployment)
            names = ", ".join(leaving.names)
            print(f"{names}: {'ended at once, ' + why if why else 'ended after its last request'}")
        if way.shown():
            print(f"a deploy would replace {way.shown()}" if way.gently else way.shown())
        for problem in seen.problems:
            print(f"in the way: {problem}")
        for note in seen.notes:
            print(f"note: {note}")
    if commands:
        give(_commands(config, plan))
    if contents:
        for host, files in deployment.files.items():
            for name, text in sorted(files.items()):
                give(f"\n--- {host}: {name}\n{redact.text(text)}", end="")
    return 0


def _seen(seen: look.Look) -> dict[str, Any]:
    """What the hosts said, in the form of _changes."""
    below = len("bundle/")
    return {
        host: {
            "nodes": nodes,
            "files": {name[below:]: what for name, what in seen.files[host].items()},
        }
        for host, nodes in seen.hosts.items()
    }


def _changes(deployment: Deployment, host: HostPlan) -> dict[str, Any]:
    """Per node what a deploy would do, and per file; for a host that is not this machine
    compared with what was last sent."""
    files = deployment.sent(host.name)
    if host.local:
        data = json.loads(files["host.json"])
        actions = needed.look(data)
        return {"nodes": actions, "files": _file_changes(files, _local_files(host))}
    sent = _sent_files(deployment, host)
    changes = _file_changes(files, sent)
    nodes = {
        node["name"]: _ssh_action(node["name"], changes, bool(sent))
        for node in json.loads(files["host.json"])["nodes"]
    }
    return {"nodes": nodes, "files": changes}


def _ssh_action(name: str, changes: Mapping[str, str], sent: bool) -> str:
    if not sent:
        return "start"
    differs = any(file.startswith(f"{name}/") for file in changes)
    return "restart" if differs else "unchanged"


def _local_files(host: HostPlan) -> dict[str, str]:
    root = Path(host.work_dir) / "bundle"
    return {
        str(path.relative_to(root)): path.read_text(encoding="utf-8")
        for path in (root.rglob("*") if root.is_dir() else ())
        if path.is_file()
    }


def _sent_files(deployment: Deployment, host: HostPlan) -> dict[str, str]:
    import zipfile

    path = deployment.folder / host.name / ARCHIVE
    if not path.is_file():
        return {}
    with zipfile.ZipFile(path) as archive:
        return {
            name[len("bundle/") :]: archive.read(name).decode()
            for name in archive.namelist()
            if name.startswith("bundle/")
        }


def _file_changes(wanted: Mapping[str, str], there: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name in sorted({*wanted, *there}):
        if name not in there:
            found[name] = "create"
        elif name not in wanted:
            found[name] = "remove"
        elif wanted[name] != there[name]:
            found[name] = "change"
    return found


def _as_data(deployment: Deployment, changes: Mapping[str, Any]) -> dict[str, Any]:
    config, plan = deployment.config, deployment.plan
    nodes = []
    for node in plan.nodes:
        hidden = dict.fromkeys(node.secrets, REDACTED)
        data = {**asdict(node), "secrets": hidden}
        for server, made in zip(node.servers, data["servers"]):
            made["argv"] = redact.words(node.argv(server))
            made["env"] = {**redact.variables(node.environment(server)), **hidden}
        nodes.append(data)
    return {
        "environment": plan.environment,
        "hosts": [
            {"name": h.name, "address": h.address, "work_dir": h.work_dir} for h in plan.hosts
        ],
        "nodes": nodes,
        "proxy": asdict(plan.proxy) if plan.proxy else None,
        "proxy_kind": deployment.proxy_kind,
        "containers": {
            name: spec["profile"]
            for host in plan.hosts
            for name, spec in plan_containers.host_specs(config.settings, plan, host).items()
        },
        "changes": changes,
        "files": {host: sorted(files) for host, files in deployment.files.items()},
        "notes": [*config.notes, *plan.notes, *image.notes(config)],
    }


def _as_text(deployment: Deployment, changes: Mapping[str, Any]) -> str:
    plan = deployment.plan
    actions = {name: what for c in changes.values() for name, what in c["nodes"].items()}
    header = ["instance", "role", "host", "address", "devices", "API ports", "kv_rank"]
    header += ["tp", "dp", "dp ranks", "offset", "master", "a deploy would"]
    rows = [
        [
            node.name,
            node.role,
            node.host,
            node.address,
            ranges(node.devices) or "-",
            ranges([server.api_port for server in node.servers]) or "-",
            str(node.kv_rank),
            str(node.tensor_parallel),
            str(node.dp_size),
            ranges([server.dp_rank for server in node.servers]) or "-",
            str(node.server_offset),
            f"{node.master_ip}:{node.master_port}",
            actions.pop(node.name, "-"),
        ]
        for node in plan.nodes
    ]
    count = len(plan.hosts)
    text = [
        f"environment {plan.environment}: {count} host{'s' if count > 1 else ''},"
        f" model {plan.model_path} as {plan.served_name}",
        table(rows, header),
    ]
    if plan.proxy is not None:
        would = actions.pop(plan.proxy.name, "-")
        text.append(
            f"{plan.proxy.name}: proxy ({deployment.proxy_kind}) on {plan.proxy.host},"
            f" {plan.proxy.listen_host}:{plan.proxy.port}, a deploy would: {would}"
        )
    text += [
        f"{name}: no longer planned, a deploy would {what} it" for name, what in actions.items()
    ]
    if deployment.config.settings.runtime == "docker":
        names = [node.container for node in plan.nodes]
        names += [plan.proxy.container] if plan.proxy and plan.proxy.container else []
        text.append(
            f"in containers of {deployment.config.settings.container.image}: {', '.join(names)}"
        )
        profile = plan_containers.profile(deployment.config.settings)
        if profile is not None:
            then = f", after which {profile['library']} must load" if profile["library"] else ""
            text.append(f"all that runs in them loads {profile['file']} first{then}")
    text.append("rendered files:")
    for host in plan.hosts:
        differing = changes[host.name]["files"]
        for name in sorted({*deployment.files[host.name], *differing}):
            what = differing.get(name, "unchanged")
            text.append(f"  {host.name}:{host.work_dir}/bundle/{name}  ({what})")
    text.append("see them with --files, every command with --commands, all as data with --json")
    return "\n".join(text)


def _caches(deployment: Deployment, live: list[str]) -> str:
    """What the servers' compiled code is kept by, those together whose inputs are the same."""
    settings = deployment.config.settings
    alike: dict[str, list[str]] = {}
    for node in deployment.plan.nodes:
        if node.compiled:
            alike.setdefault(json.dumps(node.compiled, sort_keys=True), []).append(node.name)
    work_dir = deployment.plan.hosts[0].work_dir
    lines = [f"caches ({', '.join(settings.caches.variables)}) in {work_dir}/caches/KEY, of:"]
    for text, names in alike.items():
        given = json.loads(text)
        devices = given["devices"]
        lines.append(
            f"  {', '.join(names)}: {devices['count']} devices ({devices['kind']}), tensor parallel"
            f" {devices['tensor_parallel']}, {len(given['args'])} flags, {len(given['env'])}"
            f" variables, {len(given['files'])} files, {given['model']}"
        )
    engine = "image" if settings.runtime == "docker" else "engine's files and packages"
    lines.append(f"  and of what each host says: {engine}, source, architecture, driver and chips,")
    lines.append('  the model\'s config.json. All inputs: --json, "compiled"; each key: --live')
    return "\n".join([*lines, *(f"  {one}" for one in live)])


def ranges(numbers: Any) -> str:
    """Numbers as ranges: 0-3,8."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)


def _commands(config: Config, plan: Plan) -> str:
    lines = ["commands:"]
    image = config.settings.container.image
    for host in plan.hosts:
        if config.settings.runtime == "docker" and image:
            for line in pull.pull_commands(config, image):
                lines.append(f"  image on {host.name}: {line}")
        for spec in plan_containers.host_specs(config.settings, plan, host).values():
            lines.append(f"  {spec['name']} on {host.name}: {containers.command(spec)}")
    for node in plan.nodes:
        for command in node.prepare:
            lines.append(f"  before {node.name} on {node.host}: {command}")
        for server in node.servers:
            env = redact.variables(node.environment(server))
            env.update(dict.fromkeys(node.secrets, REDACTED))
            line = run.show(redact.words(node.argv(server)), env)
            lines.append(f"  {server.name} on {node.host}: {line}")
    return "\n".join(lines)
