"""What engines compile, kept by key on the hosts (hostkit.nodes.caches): who has which, and how it
gets to hosts that lack it. It is no more than help: what cannot be is said, and compiled anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Iterable, Mapping, Optional, Sequence

from hostkit.base.errors import InputError, ToolkitError
from hostkit.base.log import say, size_text, some
from hostkit.nodes.caches import FOLDER, INCOMING
from omnikit.config.schema import Settings
from omnikit.fleet import jobs
from omnikit.plan.types import HostPlan, Plan
from omnikit.spread import talks
from omnikit.spread.transfer import pass_files

Files = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Row:
    """A node and its folder there. state: whole, none, refused (why), unknown (why). giver: the
    node whose host can give it; None: nobody, or it is not needed.
    """

    node: str
    host: str
    state: str
    key: str
    dir: str
    why: str
    bytes: int
    ranks: tuple[int, ...]
    giver: Optional[Row] = None


@dataclass
class Caches:
    """Those of a deployment. files: what was rendered, by host."""

    plan: Plan
    settings: Settings
    files: Files
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = {name: json.loads(own["host.json"]) for name, own in self.files.items()}
        self.hosts = {n: one for n, one in found.items() if any("cache" in x for x in one["nodes"])}

    def look(self) -> list[Row]:
        """Ask all hosts, and say who could give what. Changes nothing."""
        given = {name: {"host": host} for name, host in self.hosts.items()}
        done = jobs.ask(self.plan, self.settings, "caches-look", given)
        rows = []
        for host, one in done.items():
            if one.error is not None:
                say(f"note: host {host}: its caches cannot be looked at: {one.error.what}")
            for node, told in (one.result or {"nodes": {}})["nodes"].items():
                rows.append(Row(node, host, **{"dir": "", **told, "ranks": tuple(told["ranks"])}))
        if not self.settings.distribution.on_deploy:
            return rows
        return [_with_giver(row, rows) for row in rows]

    def bring(self, rows: Iterable[Row]) -> list[str]:
        """Those that others can give, to these; a line for each of what came of it."""
        found: list[str] = []
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            if row.giver is not None:
                groups.setdefault((row.key, row.giver.host), []).append(row)
        for takers in groups.values():
            first = {row.host: row for row in takers}  # several nodes of a host have one folder
            try:
                done = _Passing(self, list(first.values())).run()
            except ToolkitError as error:
                done = dict.fromkeys(first, f"not brought: {error.what.splitlines()[0]}")
            found += [f"host {host}: cache {what}" for host, what in done.items()]
        return found

    def keep(self) -> list[str]:
        """Real requests have passed: what was compiled may be used from now on. A line for each
        host where something was kept or removed.
        """
        kept = self.settings.caches.kept
        given = {name: {"host": host, "kept": kept} for name, host in self.hosts.items()}
        found = []
        for host, one in jobs.ask(self.plan, self.settings, "caches-keep", given).items():
            if one.result is None:
                why = one.error.what if one.error else "no answer"
                found.append(f"host {host}: what was compiled is not kept: {why}")
            elif one.result["changed"]:
                gone = one.result["removed"]
                removed = f"; {some(gone, 3)} removed, which nothing uses" if gone else ""
                now = some(one.result["kept"], 3) or "nothing"
                found.append(f"host {host}: cache {now} kept{removed}")
        return found


def _with_giver(row: Row, rows: Sequence[Row]) -> Row:
    """The one of the same ranks, where engines keep what they compile by rank; else any."""
    if row.state not in ("none", "refused"):
        return row
    whole = [one for one in rows if (one.state, one.key) == ("whole", row.key)]
    alike = [one for one in whole if one.ranks == row.ranks]
    return replace(row, giver=next(iter([*alike, *whole]), None))


def lines(rows: Iterable[Row]) -> list[str]:
    """For people."""
    said = []
    for row in rows:
        does = {"whole": f"there, {size_text(row.bytes)}", "none": "not there"}.get(row.state)
        does = does or f"{'not used' if row.state == 'refused' else 'unknown'}: {row.why}"
        if row.giver is not None:
            does += f"; {row.giver.host} gives it, {size_text(row.giver.bytes)}"
        elif row.state in ("none", "refused"):
            does += "; compiled at the start"
        said.append(f"{row.node} on {row.host}: cache {row.key or '-'} {does}")
    return said


class _Passing:
    """One folder, from the host of the rows' giver to those of the rows."""

    def __init__(self, caches: Caches, rows: Sequence[Row]) -> None:
        assert rows[0].giver is not None
        self.caches, self.settings, self.giver = caches, caches.settings, rows[0].giver
        self.rows = {row.host: row for row in rows}
        self.sites = {host.name: host for host in caches.plan.hosts}

    def _place(self, row: Row) -> dict[str, Any]:
        site = self.sites[row.host]
        below = f"{site.work_dir}/{FOLDER}"
        place = f"{below}/{row.key}" if row == self.giver else f"{below}/{INCOMING}/{row.key}"
        return {"dir": place, "work_dir": site.work_dir, "address": site.address}

    def _ask(self, job: str, rows: Iterable[Row], **more: Any) -> dict[str, jobs.Done]:
        hosts: list[HostPlan] = list(self.sites.values())
        given = {row.host: {**self._place(row), **more} for row in rows}
        for row in self.rows.values():
            if row.host in given:
                given[row.host]["node"] = row.node
        for name, one in given.items():
            one["host"] = self.caches.hosts[name]
        return talks.ask(hosts, self.settings, job, given)

    def run(self) -> dict[str, str]:
        """What became of each host. Raises where the giver cannot."""
        giver, told = self.giver, self.settings.distribution
        done = self._ask("caches-offer", [giver], key=giver.key, node=giver.node)
        offered = jobs.results(done)[giver.host]
        found: dict[str, str] = {}
        if offered["files"]:
            rows = [giver, *self.rows.values()]
            compared = self._ask(
                "spread-compare", rows, files=offered["files"], dry_run=False, port=told.port
            )
            looks = {giver.host: jobs.results({giver.host: compared.pop(giver.host)})[giver.host]}
            for host, one in compared.items():
                why = one.error or self._against(host, one.result or {})
                if why:
                    found[host] = f"not brought: {why.what}"
                    del self.rows[host]
                else:
                    looks[host] = one.result or {}
            if not self.rows:
                return found
            if looks[giver.host].get("taken"):
                raise self._port(looks[giver.host]["taken"])
            places = {row.host: self._place(row) for row in rows if row.host in looks}
            given = (self.sites, places, [giver.host], offered["files"], looks)
            for host, member in pass_files(self.settings, *given).run().items():
                if member.error is not None and host in self.rows:
                    found[host] = f"not brought: {member.error.what}"
                    del self.rows[host]
        taken = self._ask("caches-take", self.rows.values(), record=offered["record"])
        size = size_text(sum(one["size"] for one in offered["files"].values()))
        for host, one in taken.items():
            came = f"has {giver.key} of {giver.host}, {size}"
            found[host] = came if one.error is None else f"not brought: {one.error.what}"
        return found

    def _against(self, host: str, look: Mapping[str, Any]) -> Optional[ToolkitError]:
        need = look["missing"] - look["staged"] + (self.settings.distribution.free_mib << 20)
        if look["free"] < need:
            return InputError(
                f"{size_text(look['free'])} are free, expected {size_text(need)}; make room:"
                f" df -h {self.sites[host].work_dir}"
            )
        return self._port(look["taken"]) if look.get("taken") else None

    def _port(self, taken: str) -> InputError:
        port = self.settings.distribution.port
        return InputError(
            f"port {port}: {taken}; see what has it: ss -ltnp | grep {port}, or"
            " --set distribution.port=PORT"
        )
