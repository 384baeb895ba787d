"""What doctor found: causes with their evidence and remedy, ordered by certainty. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Iterable, Mapping, Sequence

from omnikit import causes

# How sure it is that this is what is wrong.
CERTAIN, LIKELY, POSSIBLE, UNKNOWN = "certain", "likely", "possible", "unknown"
_ORDER = (CERTAIN, LIKELY, POSSIBLE, UNKNOWN)
_SHOWN = 4  # pieces of evidence in the text; JSON has all


@dataclass(frozen=True)
class Finding:
    """name: of the catalogue, or "unknown". on: what it concerns. lines: the end of a log, where
    the cause is not known.
    """

    name: str
    certainty: str
    on: tuple[str, ...]
    cause: str
    evidence: tuple[str, ...]
    remedy: str
    lines: tuple[str, ...] = ()


def known(name: str, certainty: str, on: str, *evidence: str) -> Finding:
    """A finding with the catalogue's words."""
    entry = causes.entry(name)
    return Finding(name, certainty, (on,), entry.cause, evidence, entry.remedy)


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Equal causes as one, the most certain first; within one certainty as they came."""
    found: dict[tuple[str, str], Finding] = {}
    for one in findings:
        key = (one.name, one.name if one.name != "unknown" else " ".join(one.on))
        before = found.get(key)
        if before is None:
            found[key] = one
            continue
        surer = min(before.certainty, one.certainty, key=_ORDER.index)
        found[key] = replace(
            before,
            certainty=surer,
            on=tuple(dict.fromkeys([*before.on, *one.on])),
            evidence=tuple(dict.fromkeys([*before.evidence, *one.evidence])),
        )
    return sorted(found.values(), key=lambda one: _ORDER.index(one.certainty))


def as_text(
    environment: str, findings: Sequence[Finding], notes: Sequence[str], seen: Mapping[str, int]
) -> str:
    """For people. seen: how many hosts, servers … were looked at."""
    looked = ", ".join(_number(count, what[:-1]) for what, count in seen.items())
    said = _number(len(findings), "finding") if findings else "nothing wrong was found"
    parts = [f"{environment}: {said}" + (f" ({looked})" if looked else "")]
    parts += [_one(number, finding) for number, finding in enumerate(findings, 1)]
    parts += [f"note: {note}" for note in notes]
    return "\n\n".join(parts)


def _one(number: int, one: Finding) -> str:
    lines = [f"{number}. {one.certainty}: {one.cause}", f"   on: {_listed(one.on)}"]
    for text in one.evidence[:_SHOWN]:
        lines.append(f"   evidence: {text}")
    if len(one.evidence) > _SHOWN:
        lines.append(f"   and {len(one.evidence) - _SHOWN} more of that kind")
    if one.lines:
        lines.append("   the last lines:")
        lines += [f"     {line}" for line in one.lines]
    lines.append(f"   what to do: {one.remedy}")
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    if len(names) <= _SHOWN + 2:
        return ", ".join(names)
    return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def as_data(
    environment: str, findings: Sequence[Finding], notes: Sequence[str], seen: Mapping[str, int]
) -> dict[str, Any]:
    """For programs."""
    return {
        "environment": environment,
        "ok": not findings,
        "findings": [asdict(one) for one in findings],
        "notes": list(notes),
        "seen": dict(seen),
    }
