"""What happened to an environment, on all its hosts, by time."""

from __future__ import annotations

import time
from calendar import timegm
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence

from hostkit.base.log import some, table
from omnikit.config.config import Config
from omnikit.fleet import jobs
from omnikit.images.pull import chosen
from omnikit.topology.topology import make_plan

Event = dict[str, Any]
_MOST = 5000  # events of one host: more than anybody reads, less than a line of SSH minds
_SAME_S = 120  # within which all hosts write down the end of one command


@dataclass(frozen=True)
class History:
    """events: oldest first, each with its hosts; silent: hosts that could not be asked, and why;
    left_out: by host, how many older events there are.
    """

    environment: str
    events: Sequence[Event]
    silent: Mapping[str, str]
    left_out: Mapping[str, int]

    @property
    def data(self) -> dict[str, Any]:
        """For programs."""
        return {
            "environment": self.environment,
            "events": list(self.events),
            "silent": dict(self.silent),
            "left_out": dict(self.left_out),
        }

    @property
    def text(self) -> str:
        """For people, in this machine's time."""
        rows = [_row(event) for event in self.events]
        header = ["time", "host", "instance", "what", "why"]
        lines = [table(rows, header) if rows else "nothing is known to have happened"]
        for host, count in self.left_out.items():
            lines.append(f"{host}: {count} older events were left out")
        lines += [f"{host} could not be asked: {why}" for host, why in self.silent.items()]
        return "\n".join(lines)


def collect(
    config: Config, hosts: Sequence[str], instances: Sequence[str], since_s: Optional[float]
) -> History:
    """Ask the hosts. hosts, instances: only these; none means all. since_s: seconds up to now.

    Raises InputError for hosts that do not exist.
    """
    plan = make_plan(config)
    names = chosen(plan, hosts)
    work_dirs = {host.name: host.work_dir for host in plan.hosts}
    parameters = {
        name: {"work_dir": work_dirs[name], "since_s": since_s, "most": _MOST} for name in names
    }
    done = jobs.run(plan, config.settings, "history", parameters)
    results = {host: one.result for host, one in done.items() if one.result is not None}
    found = [
        {**event, "host": host}
        for host, result in results.items()
        for event in result["events"]
        # One folder may serve several environments, one after the other.
        if event.get("environment") in (None, plan.environment)
        and (not instances or event.get("node") in instances)
    ]
    silent = {host: str(one.error) for host, one in done.items() if one.error is not None}
    left_out = {host: r["left_out"] for host, r in results.items() if r["left_out"]}
    return History(plan.environment, merged(found), silent, left_out)


def merged(events: Sequence[Event]) -> list[Event]:
    """In order of time; what one command did on several hosts as one event."""
    made: list[Event] = []
    commands: dict[tuple[str, ...], Event] = {}
    for event in sorted(events, key=lambda one: one["time"]):
        own = {key: value for key, value in event.items() if key != "host"}
        if "by" in event:
            key = tuple(str(event.get(name)) for name in ("what", "by", "result"))
            before = commands.get(key)
            if (
                before is not None
                and event["host"] not in before["hosts"]
                and moment(event) - moment(before) <= _SAME_S
            ):
                before["hosts"].append(event["host"])
                continue
            commands[key] = own
        made.append({**own, "hosts": [event["host"]]})
        if "by" in event:
            commands[key] = made[-1]
    return made


def moment(event: Mapping[str, Any]) -> float:
    """Seconds since 1970; 0 where the time is none."""
    with suppress(ValueError):
        return timegm(time.strptime(event["time"][:19], "%Y-%m-%dT%H:%M:%S"))
    return 0.0


def _row(event: Event) -> list[str]:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment(event)))
    hosts = some(event["hosts"])
    if "by" in event:
        return [at, hosts, "-", f"{event['what']}: {event.get('result')}", f"by {event['by']}"]
    return [at, hosts, str(event.get("node") or "-"), event["what"], str(event.get("why") or "")]
