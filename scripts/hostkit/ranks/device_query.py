"""Ask a host's tools for its address and its devices' addresses. Reads, changes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

from hostkit.base import health
from hostkit.base.errors import ActionError, InputError, ToolkitError
from hostkit.base.run import Result, run
from hostkit.files import regular
from hostkit.ranks import device_facts
from hostkit.ranks.device_facts import HccnAnswer, NpuInfo

AUTO, HCCN_TOOL, HCCN_CONF = "auto", "hccn_tool", "hccn.conf"


@dataclass(frozen=True)
class Tools:
    """Where the host's tools are, and how long one may take. names: of programs, or paths.

    address: the option by which hccn_tool tells a device's address: ip, or vnic.
    """

    hccn_tool: str
    hccn_conf: Path
    npu_smi: str
    ip: str
    timeout_s: float
    interval_s: float
    address: str = "ip"


@dataclass(frozen=True)
class Found:
    """An address and who says so."""

    address: str
    source: str


class NoAnswer(ActionError):
    """A tool hung. It would hang for every device, so nothing more is asked."""


def host_address(tools: Tools, given: Optional[str] = None) -> tuple[Found, list[str]]:
    """The host's address: the given one, else that of the default route's interface. And notes.

    The host name is never asked: /etc/hosts often maps it to 127.0.1.1.
    """
    if given is not None:
        problem = device_facts.address_problem(given)
        if problem:
            raise InputError(
                f"The host's address {problem}.",
                where="--host-ip",
                todo="give the address under which the other hosts reach this one",
            )
        return Found(given, "--host-ip"), []
    route = device_facts.default_route(_ask(tools, tools.ip, "-4", "route", "list", "0/0").out)
    if route is None:
        raise InputError(
            "This host has no default route, so its address cannot be told.", todo=_GIVE_IP
        )
    source = f"the interface of the default route, {route.interface}"
    shown = _ask(tools, tools.ip, "-4", "-o", "addr", "show", "dev", route.interface).out
    addresses = [a for a in device_facts.interface_addresses(shown) if not a.secondary]
    known = [a.address for a in addresses]
    chosen = route.source or (known[0] if known else "")
    problem = device_facts.address_problem(chosen)
    if problem:
        raise InputError(f"The address of {source}, {problem}.", todo=_GIVE_IP)
    others = [address for address in known if address != chosen]
    notes = [f"{source}, also has {', '.join(others)}; {chosen} is used"] if others else []
    return Found(chosen, source), notes


_GIVE_IP = "give the address under which the other hosts reach this one: --host-ip ADDRESS"


def device_addresses(
    devices: Sequence[int], tools: Tools, *, source: str, host: str
) -> tuple[dict[int, Found], list[str]]:
    """The address of each device, from hccn_tool, else from hccn.conf. And notes.

    source: auto, hccn_tool or hccn.conf. With auto, the file stands in for a tool that is not
    installed and for a device that has no address now; a tool that fails or hangs is an error,
    for the device is then not fit to serve.
    """
    notes: list[str] = []
    in_file = _read_conf(tools.hccn_conf, required=source == HCCN_CONF, host=host)
    found: dict[int, Found] = {}
    if source != HCCN_CONF:
        found = _ask_all(devices, tools, host, source, notes)
    for device in devices:
        written = in_file.get(device)
        if device in found:
            # The file has what -ip says.
            if tools.address == "ip" and written and written != found[device].address:
                notes.append(
                    f"host {host}, device {device}: hccn_tool says {found[device].address}, "
                    f"{tools.hccn_conf} says {written}; the tool's answer is used"
                )
        elif written and source != HCCN_TOOL:
            found[device] = Found(written, str(tools.hccn_conf))
        else:
            asked = [] if source == HCCN_CONF else [tools.hccn_tool]
            asked += [] if source == HCCN_TOOL else [str(tools.hccn_conf)]
            raise InputError(
                f"Device {device} has no address: {' and '.join(asked)} know none.",
                where=f"host {host}",
                todo=f"npu-smi info lists the devices; {tools.hccn_tool} -i {device}"
                f" -{tools.address} -g must print a line ipaddr:…",
            )
    return {device: found[device] for device in devices}, notes


def _ask_all(
    devices: Sequence[int], tools: Tools, host: str, source: str, notes: list[str]
) -> dict[int, Found]:
    """hccn_tool's answers, one after the other: it refuses two users at a time."""
    found: dict[int, Found] = {}
    for device in devices:
        try:
            answer = hccn_address(device, tools, host)
        except InputError as error:
            if source == HCCN_TOOL:
                raise
            notes.append(f"host {host}: {error.what} The addresses in {tools.hccn_conf} are used")
            return found
        if answer.kind == "address":
            found[device] = Found(answer.text, HCCN_TOOL)
        else:
            said = f'"{answer.text}"' if answer.text else "an empty answer"
            notes.append(
                f"host {host}, device {device}: hccn_tool gave {said}"
                + (f"; looking into {tools.hccn_conf}" if source == AUTO else "")
            )
    return found


def hccn_address(device: int, tools: Tools, host: str) -> HccnAnswer:
    """Ask hccn_tool for one device, again while it is busy. Raises when it fails or hangs."""
    answers: list[HccnAnswer] = []
    argv = [tools.hccn_tool, "-i", str(device), f"-{tools.address}", "-g"]
    todo = (
        "npu-smi info shows the device's health; --devices-source hccn.conf does without the tool"
    )

    def idle() -> bool:
        done = run(argv, timeout=tools.timeout_s, check=False)
        answers.append(device_facts.hccn_answer(done.out, done.err, done.code))
        return answers[-1].kind != "busy"

    try:
        health.wait_until(idle, tools.timeout_s, tools.interval_s)
    except ActionError as error:  # with check=False, run raises it for a timeout alone
        raise NoAnswer(
            f"Device {device}: {error.what}.", where=f"host {host}", todo=todo
        ) from error
    answer = answers[-1]
    if answer.kind in ("busy", "error"):
        raise ActionError(
            f"Device {device}: hccn_tool says: {answer.text}", where=f"host {host}", todo=todo
        )
    return answer


def _read_conf(path: Path, *, required: bool, host: str) -> dict[int, str]:
    try:
        return device_facts.hccn_conf(regular.text(path, errors="replace"), str(path))
    except OSError as error:
        if not required:
            return {}
        raise InputError(
            f"cannot read {path}: {error.strerror}.", where=f"host {host}", todo="--hccn-conf PATH"
        ) from error


def _ask(tools: Tools, *argv: str) -> Result:
    return run(argv, timeout=tools.timeout_s)


def npu_info(tools: Tools) -> NpuInfo:
    """What npu-smi lists now."""
    done = run([tools.npu_smi, "info"], timeout=tools.timeout_s, check=False)
    return device_facts.npu_smi_info(f"{done.out}\n{done.err}")


def gather(devices: Sequence[int], tools: Tools, *, source: str, host: str) -> dict[str, Any]:
    """All that the control host compares with its plan, as JSON data; failures are text in it."""
    problems: list[str] = []
    data: dict[str, Any] = {"addresses": [], "device_ips": {}, "chips": None, "notes": []}
    try:
        shown = _ask(tools, tools.ip, "-4", "-o", "addr", "show").out
        data["addresses"] = [a.address for a in device_facts.interface_addresses(shown)]
    except ToolkitError as error:
        problems.append(error.what)
    try:
        info = npu_info(tools)
        data["chips"] = [asdict(chip) for chip in info.chips]
        data["processes"] = [asdict(process) for process in info.processes]
    except ToolkitError as error:
        problems.append(error.what)
    for device in devices:
        try:
            found, notes = device_addresses([device], tools, source=source, host=host)
            data["device_ips"][str(device)] = asdict(found[device])
            data["notes"] += [note for note in notes if note not in data["notes"]]
        except NoAnswer as error:
            problems.append(error.what)
            break
        except ToolkitError as error:
            problems.append(error.what)
    return {**data, "problems": problems}


def tools(given: dict[str, Any]) -> Tools:
    """Those that the settings (ranktable, in host.json) name."""
    return Tools(
        hccn_tool=given["hccn_tool"],
        hccn_conf=Path(given["hccn_conf"]),
        npu_smi=given["npu_smi"],
        ip=given["ip"],
        timeout_s=given["timeout_s"],
        interval_s=given["interval_s"],
    )


def facts_of(host: dict[str, Any]) -> dict[str, Any]:
    """Facts of the devices that host.json names, as device_query.gather makes them."""
    given = host["ranktable"]
    return gather(host["devices"], tools(given), source=given["source"], host=host["host"])
