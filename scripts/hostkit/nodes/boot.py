"""What this host starts by itself after a reboot: a unit of systemd, and what that unit calls.

A deploy installs the unit where restart.boot says so, and takes it away where it does not any
more; so does a clean-up. It starts the nodes that ran before, which are those that have a record,
as a deploy would: one that was stopped on purpose has none, and one that failed stays down.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Optional

from hostkit.base import run
from hostkit.base.log import say
from hostkit.base.records import boot_id, read_record, recorded_nodes
from hostkit.base.writing import write_atomically

Host = dict[str, Any]
UNITS = Path("/etc/systemd/system")
_RUNS = Path("/run/systemd/system")  # is there where systemd runs the host: sd_booted(3)
_HEAD = "# omnikit: made by invoke deploy (restart.boot), taken away by invoke clean-up: "
_START_S = 600  # the unit waits until all are launched, not until they are ready


def name(host: Host) -> str:
    """The unit's name."""
    return f"omnikit-{host['environment']}.service"


def hindrance(host: Host) -> Optional[str]:
    """Why nothing will be started after a reboot though restart.boot asks for it; None: it will."""
    why = _lacks() if host.get("boot") == "systemd" else ""
    return f"restart.boot: nothing is started here after a reboot: {why}" if why else None


def _lacks() -> str:
    if not _RUNS.is_dir():
        return "systemd does not run this host"
    return "only root installs units of systemd" if os.geteuid() != 0 else ""


def unit(host: Host) -> str:
    """The unit. Its control group is its own, and so are the limits, as servers need them."""
    work_dir = Path(host["work_dir"])
    words = (sys.executable, str(work_dir / "scripts" / "host_agent.py"), "boot")
    return f"""\
{_HEAD}{work_dir}
[Unit]
Description=LLM servers of {host["environment"]}, started again after a reboot
Wants=network-online.target
After=network-online.target docker.service
RequiresMountsFor={_word(str(work_dir))}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={" ".join(map(_word, words))}
Delegate=yes
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=1048576
LimitMEMLOCK=infinity
TimeoutStartSec={_START_S}
TimeoutStopSec={2 * host["grace_s"] + 10:g}

[Install]
WantedBy=multi-user.target
"""


def _word(text: str) -> str:
    """A word as systemd reads it: systemd.syntax(7), and % and $ as themselves."""
    for own, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        text = text.replace(own, written)
    return f'"{text}"'


def install(host: Host) -> bool:
    """Bring the unit to what is planned; True when anything was done. Starts nothing.

    Raises ActionError with systemd's words.
    """
    if host.get("boot") not in ("auto", "systemd"):
        return remove(host)
    if _lacks():
        return False  # a deploy has said so where that was asked for
    path = UNITS / name(host)
    wanted = unit(host)
    if path.is_file() and path.read_text(errors="replace") == wanted and _enabled(host):
        return False
    write_atomically(path, wanted)
    run.run(["systemctl", "daemon-reload"])
    run.run(["systemctl", "enable", "--quiet", name(host)])
    say(f"{path} is installed: it starts what runs here now after a reboot")
    return True


def _enabled(host: Host) -> bool:
    return os.path.lexists(UNITS / "multi-user.target.wants" / name(host))


def remove(host: Host) -> bool:
    """Take the unit away if it is ours; True when it was there. Ends nothing that runs."""
    path = UNITS / name(host)
    ours = f"{_HEAD}{Path(host['work_dir'])}\n"
    if not path.is_file() or not path.read_text(errors="replace").startswith(ours):
        return False
    run.run(["systemctl", "disable", "--quiet", name(host)])
    path.unlink(missing_ok=True)
    run.run(["systemctl", "daemon-reload"])
    return True


def ran(host: Host) -> set[str]:
    """Planned nodes that ran when the host went down, and had not failed."""
    planned = {node["name"] for node in host["nodes"]}
    state = Path(host["work_dir"]) / "state"
    found = set()
    for node in planned & set(recorded_nodes(state)):
        record = read_record(state, node)
        if record and record["phase"] != "failed" and record["supervisor"]["boot_id"] != boot_id():
            found.add(node)
    return found
