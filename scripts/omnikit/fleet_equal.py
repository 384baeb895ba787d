"""Fleet checks of what must be equal: versions, image, model, TLS. Names who differs. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Optional

from omnikit.check_entry import Entry, entry

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Equal:
    """A fact that all hosts should share. required: a difference breaks serving."""

    fact: str
    name: str
    title: str
    required: bool
    todo: str


RULES = (
    Equal(
        *("driver_version", "driver", "NPU driver equal on all hosts", True),
        "install the same NPU driver and firmware on all hosts, then restart them",
    ),
    Equal(
        *("firmware_version", "firmware", "NPU firmware equal on all hosts", True),
        "install the same NPU firmware on all hosts, then restart them",
    ),
    Equal(
        *("cann_version", "cann", "CANN equal on all hosts", True),
        "install the same CANN toolkit and kernels on all hosts",
    ),
    Equal(
        *("arch", "arch", "processor architecture equal on all hosts", True),
        "deploy on hosts of one architecture: images and wheels are made for one",
    ),
    Equal("os", "os", "Linux equal on all hosts", False, "install the same release everywhere"),
    Equal("kernel", "kernel", "kernel equal on all hosts", False, "boot the same kernel"),
    Equal(
        *("python", "python", "Python equal on all hosts", False),
        "install the same Python, or name it: hosts.NAME.python",
    ),
    Equal(
        *("engine", "container", "container engine equal on all hosts", False),
        "install the same container engine and version on all hosts",
    ),
    Equal(
        *("image_id", "image", "container image equal on all hosts", True),
        "invoke pull-image: a tag may have moved since the older pull; a digest cannot",
    ),
    Equal(
        *("manifest_sha256", "weights", "model files equal on all hosts", True),
        "copy the model folder again from a host that has it whole (rsync -a --checksum)",
    ),
)


def equal(facts: Mapping[str, Facts], rule: Equal) -> dict[str, Entry]:
    """Hosts that differ from what most have. Where no value leads, all of them are at fault."""
    values = {host: str(f[rule.fact]) for host, f in facts.items() if f.get(rule.fact)}
    if len(values) < 2:
        return {}
    hosts = by_value(values)
    common = _common(hosts)
    if common is not None:
        needed = f"{_short(common)}, as on {listed(hosts[common])}"
    else:
        all_of_them = "; ".join(f"{_short(v)} on {listed(own)}" for v, own in hosts.items())
        needed = f"the same on all hosts, found {all_of_them}"
    return {
        host: entry(
            f"fleet.{rule.name}",
            rule.title,
            value == common,
            required=rule.required,
            found=_short(value),
            needed=needed,
            todo=rule.todo,
        )
        for host, value in values.items()
    }


def by_value(values: Mapping[str, str]) -> dict[str, list[str]]:
    """Who has each value."""
    hosts: dict[str, list[str]] = defaultdict(list)
    for host, value in values.items():
        hosts[value].append(host)
    return dict(hosts)


def _common(hosts: Mapping[str, list[str]]) -> Optional[str]:
    """The value that more hosts have than any other; None when none leads."""
    ranked = sorted(hosts, key=lambda value: -len(hosts[value]))
    if len(ranked) > 1 and len(hosts[ranked[0]]) == len(hosts[ranked[1]]):
        return None
    return ranked[0]


def _short(value: str) -> str:
    """A hash is told apart by its beginning; all else is shown in full."""
    bare = value.partition("sha256:")[2] or value
    is_hash = len(bare) == 64 and all(c in "0123456789abcdef" for c in bare)
    return f"{bare[:12]}…" if is_hash else value


def listed(names: Iterable[str]) -> str:
    """Names for a sentence; of many, the first three and how many there are."""
    shown = list(names)
    return ", ".join(shown) if len(shown) < 5 else f"{', '.join(shown[:3])} … ({len(shown)})"


def tls(facts: Mapping[str, Facts]) -> dict[str, Entry]:
    """The TLS switch of every device of every host is the same: HCCL cannot connect otherwise."""
    devices = {host: _switches(f.get("tls")) for host, f in facts.items()}
    counted = Counter(value for own in devices.values() for value in own.values())
    if not counted:
        return {}
    ranked = counted.most_common(2)
    tied = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
    common = None if tied else ranked[0][0]
    found = {}
    for host, own in devices.items():
        if not own:
            continue
        odd = [device for device, value in own.items() if value != common]
        grouped = by_value(own)
        values = "; ".join(
            f"{value} on device {','.join(devices)}" if len(grouped) > 1 else value
            for value, devices in grouped.items()
        )
        found[host] = entry(
            "fleet.tls",
            "TLS switch equal on all devices",
            not odd,
            required=True,
            found=values,
            needed=f"{common} on every device of every host"
            if common is not None
            else "the same on every device of every host",
            todo="hccn_tool -i DEVICE -tls -s enable 0, for each device of each host that differs",
        )
    return found


def _switches(value: Any) -> dict[str, str]:
    """The TLS fact by device; one value for all of a host's devices has the key ""."""
    if isinstance(value, Mapping):
        return {str(device): str(found) for device, found in value.items() if found is not None}
    return {} if value is None or value == "" else {"": str(value)}
