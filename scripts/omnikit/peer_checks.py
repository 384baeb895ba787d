"""What the hosts' attempts to reach one another, and this machine's to reach them, mean. Pure."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence

from omnikit import ssh_options
from omnikit.check_entry import Entry, entry
from omnikit.check_parameters import SSH_PORT
from omnikit.errors import ToolkitError
from omnikit.schema import Host, Settings


def reached(result: Mapping[str, Any]) -> list[Entry]:
    """Entries of one host from the result of its job "reach"."""
    entries = []
    if result["reached"]:
        entries.append(_peers(result["reached"]))
    if result["pings"]:
        entries.append(_pings(result["pings"]))
    return entries


def _peers(tried: Sequence[Mapping[str, Any]]) -> Entry:
    odd = [peer for peer in tried if not peer["ok"]]
    silent = any(peer["state"] == "silent" for peer in odd)
    slowest = max(peer["ms"] for peer in tried)
    return entry(
        "peers.ssh",
        "other hosts reached (SSH port)",
        not odd,
        # A machine that refuses is reached all the same: what serves need not be SSH.
        required=silent or not odd,
        found="; ".join(f"{p['name']} ({p['address']}:{p['port']}): {p['found']}" for p in odd)
        or f"{len(tried)} of {len(tried)} answer, the slowest in {slowest:g} ms",
        needed="an answer from every other host",
        todo="from that host: ip route get ADDRESS, ping ADDRESS; then firewall, hosts.NAME.address"
        if silent
        else "on the other host: systemctl start sshd; or set hosts.NAME.port",
    )


def _pings(tried: Sequence[Mapping[str, Any]]) -> Entry:
    lost = [ping for ping in tried if not ping["ok"]]
    shown = [f"device {p['device']} to {p['peer_ip']}: {p['found']}" for p in lost[:4]]
    if len(lost) > 4:
        shown.append(f"and {len(lost) - 4} more of {len(tried)}")
    return entry(
        "peers.devices",
        "other hosts' devices answer pings",
        not lost,
        required=True,
        found="; ".join(shown) or f"{len(tried)} of {len(tried)} pings came back",
        needed="0.00% packet loss from each device to its peers",
        todo="on that host: hccn_tool -i DEVICE -link -g, then -netdetect -g and -gateway -g;"
        " the switch's ports and VLAN come next",
    )


def not_tried(error: ToolkitError) -> Entry:
    """The entry of a host on which the job "reach" failed as a whole."""
    return entry(
        *("peers.ssh", "other hosts reached (SSH port)", False),
        required=True,
        found=_reason(error.what),
        needed="an answer from every other host",
        todo=error.todo or "invoke check-env, again",
    )


def logged_in() -> Entry:
    """The entry of a host that this machine could log in to."""
    return entry(
        *("ssh", "SSH from this machine", True),
        required=True,
        found="logged in without being asked",
        needed="a log-in without questions",
        todo="",
    )


def failed(
    name: str, host: Host, settings: Settings, environment: str, error: ToolkitError
) -> list[Entry]:
    """Entries of a host whose checks did not run at all."""
    if host.connection == "ssh":
        fault = ssh_fault(name, host, settings, environment, str(error.what))
        if fault is not None:
            return [fault]
    ran = entry(
        *("checks", "the checks could run", False),
        required=True,
        found=_reason(error.what),
        needed="an answer",
        todo=error.todo or f"invoke check-env --environment {environment} --host {name}",
    )
    return [logged_in(), ran] if host.connection == "ssh" else [ran]


def _reason(said: str) -> str:
    """The error in a host's words, which begin with what it said while it worked."""
    before, mark, after = f"\n{said}".rpartition("\nerror: ")
    return after.strip() if mark else before.strip() or said.strip()


def ssh_fault(
    name: str, host: Host, settings: Settings, environment: str, said: str
) -> Optional[Entry]:
    """What Ansible's words mean when it could not log in; None when it could."""
    low = said.lower()
    if "the host cannot be reached" not in low:
        return None
    values = {
        "name": name,
        "environment": environment,
        "port": host.port or SSH_PORT,
        "ssh": " ".join(["ssh", *ssh_options.words(host, settings), ssh_options.target(host)]),
        "forget": _forget(host, settings),
    }
    for signs, found, todo in _FAULTS:
        if any(sign in low for sign in signs):
            return _fault(found.format(**values), todo.format(**values))
    return _fault(" ".join(said.split())[-300:], f"try it by hand: {values['ssh']}")


def _fault(found: str, todo: str) -> Entry:
    return entry(
        *("ssh", "SSH from this machine", False),
        required=True,
        found=found,
        needed="a log-in without questions",
        todo=todo,
    )


def _forget(host: Host, settings: Settings) -> str:
    """The command that forgets a host's old key."""
    named = (
        f"'[{host.address}]:{host.port}'" if host.port and host.port != SSH_PORT else host.address
    )
    file = ssh_options.known_hosts(settings)
    return f"ssh-keygen -R {named}" + (f" -f {file}" if file else "")


# Words of ssh and Ansible (lower case), what they mean, what to do. The first that fits counts.
_FAULTS = (
    (
        ("remote host identification has changed",),
        "the host's key is another than the recorded one: the host was installed anew, or this"
        " is not the host",
        "make sure which; if it was installed anew: {forget}, then invoke setup-keys"
        " --environment {environment}",
    ),
    (
        ("host key verification failed", "host key is known"),
        "the host's key is not recorded here",
        "invoke setup-keys --environment {environment}",
    ),
    (
        ("install the sshpass program",),
        "hosts.{name}.password is set, and this machine lacks sshpass, which types it",
        "apt-get install sshpass (or dnf), or use keys: invoke setup-keys"
        " --environment {environment}",
    ),
    (
        ("permission denied", "incorrect username/password", "too many authentication failures"),
        "permission denied: the host takes neither our key nor our password",
        "invoke setup-keys --environment {environment}; the user is hosts.{name}.user",
    ),
    (
        ("connection refused",),
        "port {port} refuses connections: the machine is there, its SSH server is not",
        "on the host: systemctl start sshd; or set hosts.{name}.port",
    ),
    (
        ("connection timed out", "timed out", "timeout"),
        "no answer within the time allowed (fleet.connect_timeout_s)",
        "is the host on, hosts.{name}.address right, the firewall open? by hand: {ssh}",
    ),
    (
        ("no route to host", "network is unreachable"),
        "no route to the host",
        "mend the route or hosts.{name}.address; by hand: {ssh}",
    ),
    (
        ("could not resolve hostname", "name or service not known"),
        "the host's name is not known here",
        "set hosts.{name}.address to its IP address",
    ),
)
