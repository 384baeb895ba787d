"""What this host says about its accelerators and addresses, for the rank tables.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hostkit.ranks import device_query


def gather(host: dict[str, Any]) -> dict[str, Any]:
    """Facts of the devices that host.json names, as device_query.gather makes them."""
    given = host["ranktable"]
    tools = device_query.Tools(
        hccn_tool=given["hccn_tool"],
        hccn_conf=Path(given["hccn_conf"]),
        npu_smi=given["npu_smi"],
        ip=given["ip"],
        timeout_s=given["timeout_s"],
        interval_s=given["interval_s"],
    )
    return device_query.gather(host["devices"], tools, source=given["source"], host=host["host"])
