"""Every port that the real server binds, bound: a clash shows as it would there."""

from __future__ import annotations

import socket
from typing import Mapping

from vllm.twin.log import Fault

# CANN, HCCL: where HCCL_IF_BASE_PORT is not set.
_HCCL_BASE = 60000


def api(host: str, port: int) -> socket.socket:
    """entrypoints/openai/api_server.py, create_server_socket: bound before the engine starts.

    SO_REUSEPORT is the real server's: two of them share a port without a word.
    """
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((host, port))
    return made


def hccl(devices: list[int], env: Mapping[str, str], address: str) -> list[socket.socket]:
    """HCCL, GetHostPort: for each device it listens at the base port plus the device's number."""
    base = int(env.get("HCCL_IF_BASE_PORT", _HCCL_BASE))
    made = []
    for device in devices:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("", base + device))
            one.listen(8)
        except OSError as error:
            raise Fault(
                "RuntimeError: createHCCLComm:build/CMakeFiles/torch_npu.dir/compiler_depend.ts"
                ":1479 HCCL function error: HcclGetRootInfo(&hcclID), error code is 11\n"
                "EI0019: Failed to bind the IP address and port. Reason: The IP address"
                f" {address} and port {base + device} have already been bound."
            ) from error
        made.append(one)
    return made


def zmq(address: str, port: int) -> socket.socket:
    """omni/accelerators/pd/llmdatadist_connector_v1.py, PrefillConnectorWorker.__init__: a PULL
    socket at the rank table's address of this host, port VLLM_LLMDATADIST_ZMQ_PORT + rank.
    """
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((address, port))
        made.listen(128)
    except OSError as error:
        raise Fault(
            zmq_error(error, address, port),
            '  File "/workspace/omniinfer/omni/accelerators/pd/llmdatadist_connector_v1.py", line'
            " 271, in __init__",
            '    self.input_socket.bind(f"tcp://{self.host_ip}:{self.host_port}")',
        ) from error
    return made


def zmq_error(error: OSError, address: str, port: int) -> str:
    """pyzmq's words."""
    reason = "Address already in use" if error.errno == 98 else str(error.strerror)
    return f"zmq.error.ZMQError: {reason} (addr='tcp://{address}:{port}')"
