"""Every port that a plan uses, per host, each claimed once."""

from __future__ import annotations

from dataclasses import dataclass, field

from omnikit.errors import InputError


@dataclass(frozen=True)
class Claim:
    """count ports from first on, for a purpose that a person recognises."""

    first: int
    count: int
    purpose: str
    setting: str

    @property
    def last(self) -> int:
        return self.first + self.count - 1


@dataclass
class PortLedger:
    """The claims of all hosts, keyed by host address: two names of one machine share ports."""

    ephemeral_low: int
    claims: dict[str, list[Claim]] = field(default_factory=dict)

    def claim(self, address: str, claim: Claim) -> int:
        """Record a claim and return its first port. Raises InputError when it cannot be had."""
        if claim.last > 65535:
            raise InputError(
                f"{claim.purpose} on {address} needs port {claim.last}, the highest is 65535.",
                where=claim.setting,
            )
        if claim.last >= self.ephemeral_low:
            raise InputError(
                f"{claim.purpose} on {address} needs port {claim.last}, but from"
                f" {self.ephemeral_low} on the kernel hands ports out to anyone.",
                where=claim.setting,
                todo="choose a lower port, or raise ports.ephemeral_low if your hosts allow it "
                "(sysctl net.ipv4.ip_local_port_range)",
            )
        taken = self.claims.setdefault(address, [])
        for other in taken:
            if claim.first <= other.last and other.first <= claim.last:
                port = max(claim.first, other.first)
                raise InputError(
                    f"port {port} on {address} is used twice: by {other.purpose}"
                    f" ({other.setting}) and by {claim.purpose}.",
                    where=claim.setting,
                    todo="give one of the two another port",
                )
        taken.append(claim)
        return claim.first

    def next_free(self, address: str, base: int, count: int, purpose: str, setting: str) -> int:
        """Claim the first free run of count ports at or after base."""
        first = base
        for other in sorted(self.claims.get(address, []), key=lambda c: c.first):
            if first <= other.last and other.first <= first + count - 1:
                first = other.last + 1
        return self.claim(address, Claim(first, count, purpose, setting))
