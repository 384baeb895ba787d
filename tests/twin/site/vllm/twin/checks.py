"""What CANN, Gloo and HCCL refuse, whichever engine starts."""

from __future__ import annotations

import ctypes
import sys
from typing import Mapping

from vllm.twin import parallel
from vllm.twin.log import Fault
from vllm.twin.release import RELEASE

# CANN's libraries, in the order in which torch_npu loads them.
_LIBRARIES = ("libhccl.so", "libascendcl.so")


def cann() -> None:
    """torch_npu/__init__.py: without CANN's variables its libraries are not found."""
    for name in _LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError as error:
            sys.stdout.write(
                "".join(f"{line}\n" for line in RELEASE["no_cann"]).format(error=error)
            )
            sys.exit(1)


def network(env: Mapping[str, str], ranks: int) -> None:
    """Variables whose values Gloo and HCCL refuse. ranks: of the data-parallel group."""
    interface = env.get("GLOO_SOCKET_IFNAME")
    if interface is not None and not parallel.interface_exists(interface):
        raise Fault(
            "RuntimeError: [enforce fail at ../third_party/gloo/gloo/transport/tcp/device.cc:84]"
            f" ifa != nullptr. Unable to find address for: {interface}"
        )
    if interface == "lo" and ranks > 1:
        raise Fault(
            "RuntimeError: Gloo connectFullMesh failed with [../third_party/gloo/gloo/transport/tcp"
            "/pair.cc:144] no error, remote=[127.0.0.1]:24981"
        )
    if env.get("HCCL_IF_IP", "").startswith("127.") or env.get("HCCL_SOCKET_IFNAME") == "lo":
        raise Fault(
            "RuntimeError: EI0006: Getting socket times out.\n"
            "|  dest_ip(user_rank)  |   dest_port   |  src_ip(user_rank)   |\n"
            "|  127.0.0.1(1)   |  16666  |   127.0.0.1(0)   |"
        )
    wait = env.get("HCCL_CONNECT_TIMEOUT", "120")
    if not wait.isdigit() or not 120 <= int(wait) <= 7200:
        raise Fault(
            f"EI0001: Environment variable [HCCL_CONNECT_TIMEOUT] is invalid. Reason: Value {wait}"
            " is out of range[120, 7200]."
        )
