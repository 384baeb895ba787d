"""One transfer among hosts: everyone's certificate, who is connected to whom, how fast it goes, and
hosts that were lost and come back.
"""

from __future__ import annotations

import datetime
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hostkit.base import health, run
from hostkit.base.errors import ActionError, ToolkitError
from hostkit.base.log import duration, say, size_text, some
from omnikit.config.schema import Distribution, Settings
from omnikit.fleet import direct_ssh, jobs
from omnikit.plan.types import HostPlan
from omnikit.spread import talks, wheel

_SAY_S = 5.0
_TURN_S = 0.5
_BEAT_S = 5.0
_AGAIN_S = 5.0
_ALONE_S = 30.0
_CLOCKS = datetime.timedelta(days=2)  # hosts whose clocks are wrong


class Authority:
    """A certificate authority of one run. Its key is nowhere but in this process's memory."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "one transfer")])
        self.certificate = self._signed(self._name, self._key.public_key(), None)

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePublicKey, names: Any) -> str:
        now = datetime.datetime.now(datetime.timezone.utc)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCKS)
            .not_valid_after(now + datetime.timedelta(days=14))
            .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), True)
        )
        if names is not None:
            made = made.add_extension(names, False)
        signed = made.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    def peer(self, host: str) -> tuple[str, str]:
        """Certificate and key of a host, for any torrent of this authority (libtorrent: "*")."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:60])])
        names = x509.SubjectAlternativeName([x509.DNSName("*")])
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return self._signed(name, key.public_key(), names), private.decode()


@dataclass
class Member:
    """A host in it. gives: it has all and only gives. state: as the host says it, or: starting,
    lost, failed.
    """

    host: HostPlan
    gives: bool
    state: str = "starting"
    line: dict[str, Any] = field(default_factory=dict)
    talk: Optional[run.Talk] = None
    heard: bool = False
    lost: float = 0.0
    error: Optional[ToolkitError] = None
    took: float = 0.0
    sent: int = 0
    got: int = 0
    rates: list[int] = field(default_factory=list)

    def began(self, talk: run.Talk) -> None:
        """The job has been started there."""
        self.talk, self.heard = talk, False

    @property
    def over(self) -> bool:
        """Whether it needs nothing more."""
        return self.error is not None or self.gives or self.state == "has it"

    @property
    def rate(self) -> float:
        """Bytes a second of late."""
        return sum(self.rates) / len(self.rates) if self.rates else 0.0


class Transfer:
    """parameters: what all hosts get alike for the job; torrent, files, dir and so on."""

    def __init__(
        self,
        settings: Settings,
        givers: Sequence[HostPlan],
        takers: Sequence[HostPlan],
        parameters: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.settings, self.given = settings, parameters
        self.told: Distribution = settings.distribution
        self.members = [
            *(Member(host, True) for host in givers),
            *(Member(host, False) for host in takers),
        ]
        self.authority = Authority()
        self.only = len(givers) == 1
        self.over = threading.Event()
        self.began = self.said = self.moved = 0.0
        self.beat = 0.0
        self.sum = -1
        self.warned = False
        self.seconds = 0.0

    def run(self) -> dict[str, Member]:
        """Until every host has it or has failed; seconds: how long that took."""
        hosts = [member.host for member in self.members]
        self.began = self.said = self.moved = time.monotonic()
        pool = ThreadPoolExecutor(len(hosts))
        with direct_ssh.streams(hosts, self.settings) as links, pool:
            work = [pool.submit(self._host, *one) for one in zip(self.members, links)]
            try:
                health.wait_until(self._turn, self.told.limit_s + 60, _TURN_S)
            finally:
                self.seconds = time.monotonic() - self.began
                self._stop()
            for one in work:
                one.result()
        return {member.host.name: member for member in self.members}

    def _stop(self) -> None:
        self.over.set()
        for member in self.members:
            if member.talk is not None and member.heard:
                member.talk.tell('{"stop": true}\n')
            elif member.talk is not None:
                member.talk.end(now=True)

    # --- one host, in a thread of its own ---------------------------------------------------------

    def _host(self, member: Member, link: direct_ssh.Link) -> None:
        """The job there, again when it was lost."""
        while not self.over.is_set():
            sent, got = member.sent, member.got

            def hear(line: dict[str, Any], sent: int = sent, got: int = got) -> None:
                self._hear(member, line, sent, got)

            try:
                given = self._parameters(member)
                talks.follow(link, "spread-run", given, hear, member.began)
                if not self.over.is_set() and not member.over:
                    raise talks.Lost("it ended before all was there.")
                return
            except (talks.Lost, direct_ssh.Unreachable) as error:
                done = bool(member.took)  # it gave to others, who have got by without it
                if self.over.is_set() or done or not self._wait(member, error):
                    return
            except ToolkitError as error:
                if not self.over.is_set():
                    member.state, member.error = "failed", error
                    say(f"host {member.host.name}: {error.what.splitlines()[0]}")
                return
            finally:
                member.talk, member.heard = None, False

    def _wait(self, member: Member, error: ToolkitError) -> bool:
        """Whether to try a lost host again, in a moment."""
        now = time.monotonic()
        if member.state != "lost":
            member.state, member.lost = "lost", now
            patience = self.told.patience_s
            say(
                f"host {member.host.name}: lost ({error.what.splitlines()[0]});"
                f" it is waited for, {patience:g} s at the most"
            )
        member.rates = []
        if now - member.lost > self.told.patience_s:
            member.state = "failed"
            member.error = ActionError(
                f"lost, and not back within {self.told.patience_s:g} s: {error.what}",
                todo="call it again when the host is back: it goes on where it was",
            )
            say(f"host {member.host.name}: given up")
            return False
        return not self.over.wait(_AGAIN_S)

    def _parameters(self, member: Member) -> dict[str, Any]:
        certificate, key = self.authority.peer(member.host.name)
        peers = [
            [other.host.address, self.told.port]
            for other in self.members
            if other is not member and other.host.address
        ]
        return {
            **self.given[member.host.name],
            "authority": self.authority.certificate,
            "certificate": certificate,
            "key": key,
            "port": self.told.port,
            "peers": peers,
            "rate": self._rate(),
            "only": self.only,
            "limit_s": self.told.limit_s,
        }

    def _rate(self) -> float:
        """What one host may send and receive in a second; 0: any."""
        takers = sum(1 for one in self.members if not one.over) or 1
        shares = [number(self.told.rate), number(self.told.total_rate) / takers]
        return min((one for one in shares if one), default=0)

    def _hear(self, member: Member, line: dict[str, Any], sent: int, got: int) -> None:
        member.heard = True
        if member.state == "lost":
            say(f"host {member.host.name}: back, and goes on")
        if line["at"] == "damaged":
            say(f"host {member.host.name}: read back wrong, again: {some(line['files'])}")
        if member.state != line["at"] and line["at"] == "has it" and not member.gives:
            member.took = time.monotonic() - self.began
            size, left = size_text(line.get("got", 0) + got), self._left()
            say(f"host {member.host.name}: has it, verified ({size} in {member.took:.0f} s){left}")
        member.state = line["at"]
        if "sent" in line:
            member.sent, member.got = sent + line["sent"], got + line["got"]
            member.rates = [*member.rates[-9:], line["down"]]
            member.line = line

    def _left(self) -> str:
        left = sum(1 for one in self.members if not one.over) - 1
        return f"; {left} to go" if left > 0 else ""

    # --- all of them ------------------------------------------------------------------------------

    def _turn(self) -> bool:
        """Keep them alive and tell how it goes; whether all is over."""
        now = time.monotonic()
        if all(member.over for member in self.members):
            return True
        if all(member.error for member in self.members if member.gives) and self._no_copy():
            raise ActionError(
                "nobody is left who has all of it.", todo="call it again: it goes on where it was"
            )
        if now - self.beat > _BEAT_S:
            self.beat, rate = now, self._rate()
            for member in self.members:
                if member.talk is not None and member.heard:
                    member.talk.tell(f'{{"rate": {rate}}}\n')
        working = [one for one in self.members if not one.over]
        done = sum(one.line.get("done", 0) + one.line.get("hashed", 0) for one in self.members)
        busy = any(one.state not in ("receiving", "lost") for one in working)
        if done != self.sum or busy:
            self.sum, self.moved = done, now
        elif now - self.moved > self.told.stall_s:
            raise ActionError(
                f"nothing has moved for {self.told.stall_s:g} s (distribution.stall_s): "
                + ", ".join(f"{o.host.name} {o.line.get('peers', 0)} connections" for o in working),
                todo=f"open TCP port {self.told.port} between the hosts, then call it again",
            )
        if not self.warned and now - self.began > _ALONE_S:
            self._alone(working)
        if now - self.said > _SAY_S:
            self.said = now
            say(self.line())
        return False

    def _no_copy(self) -> bool:
        return not any(one.state in ("has it", "verifying", "placing") for one in self.members)

    def _alone(self, working: Sequence[Member]) -> None:
        self.warned = True
        alone = [o.host.name for o in working if o.heard and o.line.get("peers") == 0]
        if alone:
            say(
                f"note: {some(alone)}: no connection to any other host; TCP port"
                f" {self.told.port} must be open between them (distribution.port)"
            )

    def line(self) -> str:
        """How far it is, how fast, how long it will take, and who is the slowest."""
        takers = [one for one in self.members if not one.gives]
        active = [one for one in takers if one.state == "receiving" and one.line]
        done = sum(one.line.get("done", 0) for one in takers)
        total = sum(one.line.get("total", 0) for one in takers)
        has = sum(1 for one in takers if one.state == "has it")
        share = 100 * done // total if total else 0
        text = f"{share} % of {size_text(total)}, {has} of {len(takers)} hosts have it"
        states = [one.state for one in takers]
        for state in ("starting", "copying", "comparing", "verifying", "lost", "failed"):
            if state in states:
                text += f", {states.count(state)} {state}"
        if active:
            slow = min(active, key=lambda one: one.rate)
            speed = sum(one.rate for one in active)
            text += f"; {size_text(speed)}/s in all"
            left = [(one.line["total"] - one.line["done"]) / one.rate for one in active if one.rate]
            if len(left) == len(active):
                text += f", {duration(max(left))} left"
            text += f"; slowest {slow.host.name} {size_text(slow.rate)}/s"
        return text


def pass_files(
    settings: Settings,
    sites: Mapping[str, HostPlan],
    places: Mapping[str, Mapping[str, Any]],
    gives: Sequence[str],
    files: Mapping[str, Mapping[str, Any]],
    looks: Mapping[str, Mapping[str, Any]],
    replace: bool = False,
) -> Transfer:
    """The transfer of a folder's files from those who have all of them, the first of whom describes
    them, to all others, ready to be run. places: dir, work_dir and address, by host; looks: of
    spread-compare. replace: what else an engine may load there goes.
    """
    wheel.ship(sites, settings, {name: looks[name] for name in places})
    origin = gives[0]
    say(f"describing {len(files)} files on {origin}")
    given = {origin: {**places[origin], "files": files}}
    asked = talks.ask(list(sites.values()), settings, "spread-describe", given, f"reading {origin}")
    torrent = jobs.results(asked)[origin]["torrent"]
    alike = {"torrent": torrent, "files": files, "wanted": None, "place": True, "replace": replace}
    return Transfer(
        settings,
        [sites[name] for name in gives],
        [sites[name] for name in places if name not in gives],
        {name: {**place, **alike} for name, place in places.items()},
    )


def number(size: Optional[str]) -> int:
    """A size like 200m in bytes; 0: none is set."""
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    unit = units.get((size or "0")[-1].lower())
    return int((size or "0")[:-1]) * unit if unit else int(size or 0)
