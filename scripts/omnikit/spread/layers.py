"""An image on all hosts by the layers that they lack: one host gives them, the others pass them on
to each other (omnikit.spread.transfer), and each puts its image together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from hostkit.base import run
from hostkit.base.errors import InputError, ToolkitError
from hostkit.base.log import duration, say, size_text, some
from hostkit.containers import engines, images
from hostkit.containers.image_look import parse
from hostkit.spread.layers import lacking
from omnikit.config.config import Config
from omnikit.fleet import jobs
from omnikit.fleet.jobs import Done
from omnikit.images import pull
from omnikit.plan.types import HostPlan, Plan
from omnikit.spread import talks, wheel
from omnikit.spread.transfer import Transfer

HERE = "here"  # what --from calls this machine


def bring(
    config: Config,
    plan: Plan,
    hosts: Sequence[str],
    image: str,
    *,
    origin: str = "",
    if_missing: bool = False,
) -> dict[str, Done]:
    """Have an image on hosts: pulled by each, or passed on from one that has it (image.pass_on).

    origin: who gives it; "": whoever has it. if_missing: a tag that is there is not compared with
    the registry's. Never raises for a host.
    """
    way = config.settings.image.pass_on
    if origin or (way == "always" and len(hosts) > 1):
        return _from_one(config, plan, hosts, image, origin, if_missing)
    if way == "never" or len(hosts) < 2:
        return pull.pull(config, plan, hosts, image, if_missing)
    done: dict[str, Done] = {}
    if if_missing:
        done = _from_neighbours(config, plan, hosts, image)
    left = [host for host in hosts if host not in done]
    if left:
        _pull_or_give(config, plan, left, image, if_missing, done)
    return {host: done[host] for host in hosts}


def _pull_or_give(
    config: Config,
    plan: Plan,
    hosts: Sequence[str],
    image: str,
    if_missing: bool,
    done: dict[str, Done],
) -> None:
    """Pulled by each; who cannot gets it from one that has it. Where one has it at once, a registry
    that does not answer is waited for only when nobody could give it. done: of all hosts.
    """
    passed = not parse(image).digest
    looks = _looks(config, plan, hosts, image) if passed and not if_missing else {}
    others = passed and bool(done or [one for one in looks.values() if _has(one)])
    done.update(pull.pull(config, plan, hosts, image, if_missing, others=others))
    failed = [host for host in hosts if done[host].error is not None]
    givers = [host for host in done if done[host].error is None]
    if failed and givers and passed:
        say(f"{some(failed)}: cannot pull it; {givers[0]} gives the layers that they lack")
        moved = _tried(config, plan, failed, image, givers[0])
        # Who gets it neither way hears why it could not be pulled; the other reason was a note.
        done.update({host: one for host, one in moved.items() if one.error is None})
    left = [host for host in failed if done[host].error is not None]
    if left and others:  # the registry may have been away for a moment
        done.update(pull.pull(config, plan, left, image, if_missing))


def _from_one(
    config: Config, plan: Plan, hosts: Sequence[str], image: str, origin: str, if_missing: bool
) -> dict[str, Done]:
    """One host gives what the others lack: one that was named asks the registry only for what it
    has not got.
    """
    local = next((host.name for host in plan.hosts if host.local), None)
    known = {host.name for host in plan.hosts}
    if origin == HERE and HERE not in known:
        if local is None:
            given = {**pull.here(config, image), "if_missing": True}
            given["platform"] = pull.of_hosts(config, plan, hosts)
            images.pull(given)
            return pass_on(config, plan, hosts, image, HERE)
        origin = local
    if origin and origin not in known:
        raise InputError(
            f"there is no host {origin!r}, found: {', '.join(sorted(known))}, or {HERE} (this"
            " machine).",
            where="--from",
        )
    looks = _looks(config, plan, [origin] if origin else hosts, image)
    there = [host for host, one in looks.items() if _has(one)]
    giver = origin or (there or list(hosts))[0]
    first: dict[str, Done] = {}
    if not (there and (origin or if_missing)):
        first = pull.pull(config, plan, [giver], image, if_missing, others=bool(there))
        jobs.results(first)
    done = pass_on(config, plan, hosts, image, giver)
    return {host: first.get(host, one) for host, one in done.items()}


def _from_neighbours(
    config: Config, plan: Plan, hosts: Sequence[str], image: str
) -> dict[str, Done]:
    """What is there already, and what hosts get that lack it while others have the one image of the
    name; those that are left out have to be asked for it, or to ask for it, otherwise.
    """
    looks = _looks(config, plan, hosts, image)
    has = {host: one.result["image"] for host, one in looks.items() if one.result and _has(one)}
    done = {host: Done(_unchanged(image, there)) for host, there in has.items()}
    lack = [host for host, one in looks.items() if one.result and not _has(one)]
    if has and lack and len({there["id"] for there in has.values()}) == 1:
        giver = next(iter(has))
        say(f"{some(lack)} {'lack' if len(lack) > 1 else 'lacks'} {image}, which {giver} has")
        moved = _tried(config, plan, lack, image, giver)
        done.update({host: one for host, one in moved.items() if one.error is None})
    return done


def _tried(
    config: Config, plan: Plan, hosts: Sequence[str], image: str, origin: str
) -> dict[str, Done]:
    try:
        return pass_on(config, plan, hosts, image, origin)
    except ToolkitError as error:
        say(f"note: {origin} cannot give it: {error.what.splitlines()[0]}")
        return dict.fromkeys(hosts, Done(error=error))


def _looks(config: Config, plan: Plan, hosts: Sequence[str], image: str) -> dict[str, Done]:
    given = {"image": image, "engine": config.settings.container.engine}
    return talks.ask(plan.hosts, config.settings, "layers-look", dict.fromkeys(hosts, given))


def _has(done: Done) -> bool:
    """Whether a host has an image of the name that its engine can run."""
    told = done.result or {}
    there = told.get("image")
    return there is not None and not engines.differ(there["platform"], told["platform"])


def _unchanged(image: str, there: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a host that has it, as of the job "pull"."""
    return {
        **{"changed": False, "action": "unchanged", "image": image, "from": "this host"},
        **{"name": there["name"], "id": there["id"], "platform": there["platform"]},
        "digest": next((d.partition("@")[2] for d in there["digests"]), ""),
    }


def pass_on(
    config: Config,
    plan: Plan,
    hosts: Sequence[str],
    image: str,
    origin: str,
    loading: Optional[Mapping[str, Any]] = None,
) -> dict[str, Done]:
    """The image of origin (a host's name, or HERE) to hosts, by the layers that each lacks.

    loading: what images.pull.loading says of an archive of this machine, from which they are taken.
    Raises InputError and ActionError where it cannot be given at all.
    """
    if parse(image).digest:
        raise InputError(
            f"{image}: layers that are passed on have no digest of a registry.",
            todo="name the image by its tag; or let each host pull it: --set image.pass_on=never",
        )
    return _Passing(config, plan, image, origin, loading).run(hosts)


def load(
    config: Config, plan: Plan, hosts: Sequence[str], loading: dict[str, Any]
) -> dict[str, Done]:
    """The image of an archive of this machine on hosts: the layers that they lack, or the archive
    whole where those cannot be passed on (or shall not: image.pass_on).
    """
    done: dict[str, Done] = {}
    away = [host.name for host in plan.hosts if host.name in hosts and not host.local]
    if away and config.settings.image.pass_on != "never":
        try:
            done = pass_on(config, plan, away, loading["image"], HERE, loading)
        except ToolkitError as error:
            say(f"note: its layers cannot be passed on: {error.what.splitlines()[0]}")
    left = [host for host in hosts if host not in done or done[host].error is not None]
    if left:
        done.update(pull.load(config, plan, left, loading))
    return {host: done[host] for host in hosts}


def commands(config: Config, image: str) -> list[str]:
    """What gives and puts together an image, as lines to show."""
    engine = pull.shown_engine(config)
    archive = images.load_argv(engine, Path("WORK_DIR/layers/.image.tar"))
    return [run.show(engine.argv("save", image)), run.show(archive)]


@dataclass
class _Taker:
    """A host that lacks layers. look: of layers-look; wanted: files by name."""

    look: Mapping[str, Any]
    wanted: tuple[str, ...] = ()


class _Passing:
    """One image from one host to others."""

    def __init__(
        self,
        config: Config,
        plan: Plan,
        image: str,
        origin: str,
        loading: Optional[Mapping[str, Any]],
    ) -> None:
        self.config, self.plan, self.image, self.origin = config, plan, image, origin
        self.loading, self.told = loading, config.settings.distribution
        self.sites = {host.name: host for host in plan.hosts}
        if origin == HERE and HERE not in self.sites:
            self.sites[HERE] = talks.this_machine(plan, HERE)
        self.done: dict[str, Done] = {}
        self.takers: dict[str, _Taker] = {}

    def run(self, hosts: Sequence[str]) -> dict[str, Done]:
        """Look, move, load. What fails on a host is its own."""
        looks = self._ask("layers-look", list(dict.fromkeys([self.origin, *hosts])))
        if self.loading is not None:
            ids, platforms = self.loading["ids"], self.loading["platforms"]
        else:
            there = jobs.results({self.origin: looks[self.origin]})[self.origin]["image"]
            if there is None:
                raise InputError(f"{self.origin} has no image {self.image}.", where="--from")
            ids, platforms = [there["id"]], [there["platform"]]
        for host in hosts:
            self.done[host] = self._judged(looks[host], ids, platforms)
            if self.done[host].result is None and self.done[host].error is None:
                self.takers[host] = _Taker(looks[host].result or {})
        if self.takers:
            self._move()
        return {host: self.done[host] for host in hosts}

    def _site_list(self) -> list[HostPlan]:
        return list(self.sites.values())

    def _dir(self, name: str) -> str:
        return str(Path(self.sites[name].work_dir) / "layers")

    def _place(self, name: str) -> dict[str, Any]:
        site = self.sites[name]
        return {"dir": self._dir(name), "work_dir": site.work_dir, "address": site.address}

    def _ask(self, job: str, names: Sequence[str], what: str = "", **more: Any) -> dict[str, Done]:
        settings = self.config.settings
        own = {"image": self.image, "engine": settings.container.engine, **more}
        given = {name: {**self._place(name), **own} for name in names}
        return talks.ask(self._site_list(), settings, job, given, what)

    def _judged(self, look: Done, ids: Sequence[str], platforms: Sequence[str]) -> Done:
        """Its end for a host that gets nothing; neither result nor error: it is to get it."""
        if look.result is None:
            return look
        there, runs = look.result["image"], look.result["platform"]
        if there is not None and there["id"] in ids:
            return Done(_unchanged(self.image, there))
        if platforms and all(engines.differ(one, runs) for one in platforms):
            said = (
                f"{self.origin} has {self.image} for {' and '.join(platforms)}, {runs} is needed."
            )
            return Done(error=InputError(said, todo="let hosts of that kind pull it"))
        free, need = look.result["free_mib"], self.config.settings.image.free_mib
        if free is not None and free < need:
            place = look.result["place"]
            said = (
                f"too little space for the image {self.image}: {free} MiB free on the disk of"
                f" {place}, {need} MiB needed (image.free_mib)."
            )
            todo = f"make room: docker system df; docker image prune; df -h {place}"
            return Done(error=InputError(said, todo=todo))
        return Done()

    def _move(self) -> None:
        common = set.intersection(*(set(one.look["chains"]) for one in self.takers.values()))
        offered = jobs.results(
            self._ask(
                "layers-offer",
                [self.origin],
                f"reading {self.image} on {self.origin}",
                archive=self.loading["archive"] if self.loading else None,
                chains=sorted(common),
                free_mib=self.told.free_mib,
            )
        )[self.origin]
        files = offered["files"]
        try:
            for taker in self.takers.values():
                layers = lacking(offered["layers"], set(taker.look["chains"]))
                taker.wanted = (offered["config"], *(one.partition(":")[2] for one in layers))
            compared = self._compare(files)
            if self.takers:
                self._transfer(files, compared)
                self._load(offered)
        finally:
            self._ask("layers-clear", [self.origin], files=files)

    def _refuse(self, host: str, error: ToolkitError) -> None:
        self.done[host] = Done(error=error)
        del self.takers[host]

    def _compare(self, files: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """What of it a cut run has left there, and whether there is room. Raises for the giver."""
        given = {
            name: {**self._place(name), "files": files, "dry_run": False, "port": self.told.port}
            for name in (self.origin, *self.takers)
        }
        for name, taker in self.takers.items():
            given[name]["files"] = {one: files[one] for one in taker.wanted}
        done = talks.ask(self._site_list(), self.config.settings, "spread-compare", given)
        jobs.results({self.origin: done[self.origin]})
        found = {name: one.result for name, one in done.items() if one.result is not None}
        for name in (self.origin, *self.takers):
            error = done[name].error or self._against(name, found.get(name, {}))
            if error is None:
                continue
            if name == self.origin:
                raise error
            found.pop(name, None)
            self._refuse(name, error)
        return found

    def _against(self, name: str, look: Mapping[str, Any]) -> Optional[ToolkitError]:
        # The layers, and the archive that the engine loads.
        need = 2 * look["missing"] - look["staged"] + (self.told.free_mib << 20)
        if name in self.takers and look["free"] < need:
            return InputError(
                f"{size_text(look['free'])} are free, expected {size_text(need)} (twice what it"
                f" lacks, and distribution.free_mib).",
                todo=f"make room: df -h {self.sites[name].work_dir}",
            )
        if look.get("taken"):
            return InputError(
                f"port {self.told.port}: {look['taken']}.",
                todo=f"see what has it: ss -ltnp | grep {self.told.port};"
                " or --set distribution.port=PORT",
            )
        return None

    def _transfer(self, files: Mapping[str, Any], compared: Mapping[str, Any]) -> None:
        lacked = sum(one["missing"] for name, one in compared.items() if name != self.origin)
        whole = sum(files[one]["size"] for one in files)
        say(
            f"passing {size_text(whole)} of {self.image} on from {self.origin}:"
            f" {len(self.takers)} hosts lack {size_text(lacked)} in all"
        )
        settings = self.config.settings
        wheel.ship(self.sites, settings, compared)
        described = self._ask("spread-describe", [self.origin], files=files)
        torrent = jobs.results(described)[self.origin]["torrent"]
        parameters = {
            name: {
                **self._place(name),
                **{"torrent": torrent, "files": files, "place": True, "replace": False},
                "wanted": list(self.takers[name].wanted) if name in self.takers else None,
            }
            for name in (self.origin, *self.takers)
        }
        takers = [self.sites[name] for name in self.takers]
        transfer = Transfer(settings, [self.sites[self.origin]], takers, parameters)
        members = transfer.run()
        sent = members[self.origin].sent
        say(
            f"{len(takers)} hosts in {duration(transfer.seconds)}; out of {self.origin}:"
            f" {size_text(sent)}"
        )
        for name in list(self.takers):
            error = members[name].error
            if error is not None:
                self._refuse(name, error)

    def _load(self, offered: Mapping[str, Any]) -> None:
        settings = self.config.settings
        done = self._ask(
            "layers-load",
            list(self.takers),
            platform=settings.image.platform,
            platforms=[],
            free_mib=settings.image.free_mib,
            giver=self.origin,
            **{name: offered[name] for name in ("layers", "sizes", "config")},
        )
        for host, one in done.items():
            self.done[host] = one
            pull.tell(host, one)
