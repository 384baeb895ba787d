"""Showing the servers' logs, from wherever they lie."""

from __future__ import annotations

from functools import partial
from typing import Sequence

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import give
from omnikit.config.config import Config
from omnikit.config.layers import PROJECT
from omnikit.fleet import direct_ssh
from omnikit.fleet.direct_ssh import Link
from omnikit.plan.types import HostPlan, Plan
from omnikit.topology.topology import make_plan


def sources(plan: Plan) -> list[tuple[str, str, HostPlan]]:
    """Name, path and host of every server's log, the proxy's last."""
    hosts = {host.name: host for host in plan.hosts}
    found = [
        (f"{node.name}.ray", f"{node.log_dir}/ray.log", hosts[node.host])
        for node in plan.nodes
        if node.ray
    ]
    found += [
        (server.name, f"{node.log_dir}/server_{server.local_rank}.log", hosts[node.host])
        for node in plan.nodes
        for server in node.servers
    ]
    if plan.proxy is not None:
        proxy = plan.proxy
        found.append((proxy.name, f"{proxy.log_dir}/proxy.log", hosts[proxy.host]))
    return found


def tail_command(link: Link, path: str, lines: int, follow: bool) -> list[str]:
    """The command that prints a log of a host."""
    return link.argv("tail", "-n", str(lines), *(["-F"] if follow else []), "--", path)


def show(config: Config, names: Sequence[str], lines: int, follow: bool) -> int:
    """Print the chosen logs; follow until interrupted. Returns 1 when one cannot be read."""
    found = sources(make_plan(config))
    known = [name for name, _, _ in found]
    chosen = [s for s in found if not names or s[0] in names or s[0].split(".")[0] in names]
    for name in names:
        if not any(name in (s[0], s[0].split(".")[0]) for s in found):
            raise InputError(
                f"there is no instance {name!r}.",
                where="--instance",
                todo=f"one of {', '.join(known)}",
            )
    alone = len(chosen) == 1

    def on_line(index: int, line: str) -> None:
        give(line if alone else f"{chosen[index][0]} | {line}")

    with direct_ssh.streams([host for _, _, host in chosen], config.settings) as links:
        commands = [
            tail_command(link, path, lines, follow) for link, (_, path, _) in zip(links, chosen)
        ]
        env = {name: value for link in links for name, value in link.env.items()}
        if follow:
            codes = run.stream_all(commands, on_line, env=env, cwd=PROJECT, ends=run.REDRAWN)
        else:
            # One after the other, so that each log stays in one piece.
            codes = [
                run.stream(argv, partial(on_line, index), env=env, cwd=PROJECT, redrawn=True)
                for index, argv in enumerate(commands)
            ]
    if any(codes):
        raise ActionError(
            "a log could not be read, see above.", todo="has it been deployed? make status"
        )
    return 0
