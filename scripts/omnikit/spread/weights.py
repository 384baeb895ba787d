"""The weights of an environment on all its hosts: who has what, who gives, what is to be moved;
then the transfer, and what came of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import duration, say, size_text, some, table
from omnikit.config.config import Config
from omnikit.fleet import jobs
from omnikit.fleet.jobs import Done
from omnikit.plan.types import Plan
from omnikit.spread import talks
from omnikit.spread.transfer import Member, number, pass_files

HERE = "this machine"


@dataclass(frozen=True)
class Request:
    """What is wanted. origin: a host's name, or a folder of this machine; "": whoever has it whole.
    hosts: who is to have it; ask: who besides may have it.
    """

    hosts: Sequence[str]
    ask: Sequence[str] = ()
    origin: str = ""
    dry_run: bool = False
    replace: bool = False


@dataclass
class Spread:
    """What was found. by host: givers has all; looks: answers of spread-compare."""

    files: dict[str, dict[str, Any]]
    by: str
    givers: list[str]
    looks: dict[str, dict[str, Any]]
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of one copy."""
        return sum(one["size"] for one in self.files.values())

    @property
    def takers(self) -> list[str]:
        """Hosts that lack something."""
        return [host for host, look in self.looks.items() if look["missing"]]


class Weights:
    """The folder of the weights (model.path) on the hosts of a plan."""

    def __init__(self, config: Config, plan: Plan, request: Request) -> None:
        self.config, self.plan, self.request = config, plan, request
        self.told = config.settings.distribution
        self.sites = {host.name: host for host in plan.hosts}
        self.dirs = {host.name: host.path(plan.model_path) for host in plan.hosts}
        if request.origin and request.origin not in self.sites:
            self._add_here(request.origin)

    def _add_here(self, origin: str) -> None:
        """A folder of this machine, which is no host of the plan then."""
        folder = Path(origin).expanduser()
        if not folder.is_dir():
            raise InputError(
                f"{origin!r} is neither a host ({', '.join(self.sites)}) nor a folder here.",
                where="--from",
            )
        self.sites[HERE] = talks.this_machine(self.plan, HERE)
        self.dirs[HERE] = str(folder.resolve())

    def _place(self, name: str) -> dict[str, Any]:
        site = self.sites[name]
        return {"dir": self.dirs[name], "work_dir": site.work_dir, "address": site.address}

    def _ask(self, job: str, names: Sequence[str], what: str = "", **more: Any) -> dict[str, Done]:
        given = {name: {**self._place(name), **more} for name in names}
        return talks.ask(list(self.sites.values()), self.config.settings, job, given, what)

    # --- what is where ----------------------------------------------------------------------------

    def look(self) -> Spread:
        """Choose who gives, and compare all. Raises InputError, and ActionError where the origin's
        files are not what its list says.
        """
        wanted = {*self.request.hosts, *self.request.ask, self._named()}
        asked = [name for name in self.sites if name in wanted]
        looks = self._ask("spread-look", asked)
        origin = self._origin(looks)
        found = jobs.results(
            self._ask("spread-offer", [origin], f"reading {origin}", dry_run=self.request.dry_run)
        )[origin]
        files, hosts = found["files"], [one for one in self.request.hosts if one != origin]
        done = self._ask(
            "spread-compare",
            [*hosts, origin],
            "comparing",
            files=files,
            dry_run=self.request.dry_run,
            port=self.told.port,
            replace=self.request.replace,
        )
        compared = jobs.results({origin: done.pop(origin)})[origin]
        errors = {host: str(one.error) for host, one in done.items() if one.error is not None}
        answers = {host: one.result for host, one in done.items() if one.result is not None}
        givers = [origin, *(host for host, one in answers.items() if not one["missing"])]
        return Spread(files, found["by"], givers, {origin: compared, **answers}, errors)

    def _named(self) -> str:
        origin = self.request.origin
        return origin if origin in self.sites else HERE if origin else ""

    def _origin(self, looks: Mapping[str, Done]) -> str:
        named = self._named()
        results = {name: one.result for name, one in looks.items() if one.result is not None}
        if named:
            told = jobs.results({named: looks[named]})[named]
            if not told["whole"]:
                raise InputError(
                    f"{self.dirs[named]} is no whole checkpoint: {told['why']}.",
                    where=named,
                    todo="finish it: invoke download-weights or convert-weights; or name another",
                )
            return named
        whole = {name: one for name, one in results.items() if one["whole"]}
        if not whole:
            said = "\n  ".join(
                f"{name}: {one.result['why'] if one.result else one.error}"
                for name, one in looks.items()
            )
            raise InputError(
                f"no host has a whole checkpoint in {self.plan.model_path}.\n  {said}",
                todo="name who has it: --from HOST, or --from FOLDER of this machine",
            )
        listed = {one["version"] for one in whole.values() if one["version"]}
        if len(listed) > 1:
            shown = "; ".join(
                f"{one['version']} ({one['by']}, {size_text(one['bytes'])}) on {name}"
                for name, one in whole.items()
                if one["version"]
            )
            raise InputError(
                f"the hosts have different checkpoints: {shown}.",
                todo="name the one that is meant: --from HOST",
            )
        return next((name for name, one in whole.items() if one["version"]), next(iter(whole)))

    def refusals(self, found: Spread) -> list[str]:
        """What keeps the transfer from beginning, a sentence for each host."""
        said = [f"{host}: {text}" for host, text in found.errors.items()]
        for host, look in found.looks.items():
            takes = look["missing"] > 0
            need = look["missing"] - look["staged"] + (self.told.free_mib << 20)
            if takes and look["free"] < need:
                said.append(
                    f"{host}: {size_text(look['free'])} are free, expected {size_text(need)}"
                    f" (what it lacks, and distribution.free_mib); make room:"
                    f" df -h {self.dirs[host]}"
                )
            if takes and look["strange"] and not self.request.replace:
                said.append(
                    f"{host}: {some(look['strange'], 3)} in {self.dirs[host]} do not belong to this"
                    " checkpoint, and an engine may load them. Move them away, or --replace"
                )
            if look.get("taken") and found.takers:
                said.append(
                    f"{host}: port {self.told.port}: {look['taken']}. See what has it:"
                    f" ss -ltnp | grep {self.told.port}; or --set distribution.port=PORT"
                )
        return said

    # --- the transfer -----------------------------------------------------------------------------

    def run(self, found: Spread) -> tuple[dict[str, Member], float]:
        """Move what is lacking, and how long that took. Who calls holds the hosts' locks."""
        takes = found.takers
        gives = [host for host in found.givers if host not in takes]
        transfer = pass_files(
            self.config.settings,
            self.sites,
            {name: self._place(name) for name in (*gives, *takes)},
            gives,
            found.files,
            found.looks,
            self.request.replace,
        )
        return transfer.run(), transfer.seconds


# --- what people and programs get to see ----------------------------------------------------------


def shown(weights: Weights, found: Spread) -> str:
    """The plan as text."""
    rows = []
    for host, look in sorted(found.looks.items(), key=lambda one: one[0] not in found.givers):
        if not look["missing"]:
            does = "gives" if found.takers else "has it"
        else:
            does = f"gets {size_text(look['missing'])}"
        notes = []
        if look["staged"]:
            notes.append(f"{size_text(look['staged'])} of that are there of a run that was cut")
        if look["older"] and look["missing"]:
            notes.append(f"good pieces of {len(look['older'])} older files are used")
        free = size_text(look["free"]) if look["missing"] else ""
        rows.append([host, weights.dirs[host], does, free, "; ".join(notes)])
    lines = [table(rows, ["host", "folder", "does", "free", ""])]
    by = f"by {found.by}" if found.by else "no list of files there: as they are"
    lines.append(f"one copy: {len(found.files)} files, {size_text(found.bytes)} ({by})")
    if found.takers:
        told = weights.told
        limits = [
            f"{size_text(number(rate))}/s {what}"
            for rate, what in ((told.rate, "each host"), (told.total_rate, "in all"))
            if rate
        ]
        lines.append(
            f"TCP port {told.port} of each host, open between them while it lasts;"
            f" at most {' and '.join(limits) or 'what the links take'}"
        )
    return "\n".join(lines)


def outcome(found: Spread, members: Mapping[str, Member], seconds: float) -> dict[str, Any]:
    """What came of it, for programs."""
    hosts = {}
    for host, look in found.looks.items():
        member: Optional[Member] = members.get(host)
        hosts[host] = {
            "had": found.bytes - look["missing"],
            "got": member.got if member else 0,
            "gave": member.sent if member else 0,
            "seconds": round(member.took, 1) if member else 0.0,
            "error": str(member.error) if member and member.error else None,
        }
    return {
        "changed": any(one["got"] or one["seconds"] for one in hosts.values()),
        "files": len(found.files),
        "bytes": found.bytes,
        "origin": found.givers[0],
        "seconds": round(seconds, 1),
        "hosts": hosts,
    }


def distribute(weights: Weights, found: Spread) -> dict[str, Any]:
    """The transfer and its outcome. Raises ActionError that names the hosts that failed."""
    members, seconds = weights.run(found)
    result = outcome(found, members, seconds)
    gave = sum(members[g].sent for g in found.givers if g in members)
    say(
        f"{len(found.takers)} hosts in {duration(result['seconds'])}; out of"
        f" {some(found.givers, 3)}: {gave / max(1, found.bytes):.2f} copies"
    )
    failed = {name: one.error for name, one in members.items() if one.error is not None}
    if failed:
        raise ActionError(
            "\n".join(f"host {name}: {error}" for name, error in failed.items()),
            todo=f"{len(found.takers) - len(failed)} hosts have it; call it again for the others:"
            " it goes on where it was",
        )
    return result
