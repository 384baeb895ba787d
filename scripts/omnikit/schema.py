"""Types and ranges of every setting. Defaults and explanations stand in configs/defaults.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Dict, List, Literal, Optional

from pydantic import Field

from omnikit.schema_base import Secret, Strict
from omnikit.schema_measuring import Benchmark, Monitoring
from omnikit.schema_preparation import Checks, Container, Image, Keys, Source, Sync
from omnikit.schema_server import Profiling, Server, ServerPart
from omnikit.schema_weights import Weights
from omnikit.setting_types import (
    Address,
    Balance,
    Buffers,
    Count,
    Devices,
    Jump,
    Line,
    Mebibytes,
    Name,
    NginxTime,
    NodeName,
    Offset,
    PathText,
    Port,
    Program,
    Seconds,
    Size,
    Url,
    parse_devices,
)

__all__ = ["ROLES", "Host", "Instance", "Secret", "Server", "Settings", "parse_devices"]

ROLES = ("prefill", "decode", "colocated")


class Profile(Strict):
    engine: Name
    omni_version: Name
    model: Name


class RolePart(Strict):
    server: Optional[ServerPart] = None


class Roles(Strict):
    disaggregated: RolePart
    prefill: RolePart
    decode: RolePart
    colocated: RolePart


def _said(text: str) -> Any:
    return Field(default=None, description=text)


class Host(Strict):
    address: Annotated[Address, Field(description="IP that the other hosts reach")]
    connection: Annotated[
        Literal["ssh", "local"], Field(description="local: this machine is the host")
    ] = "ssh"
    user: Optional[Name] = _said("SSH user; null: SSH's own choice")
    port: Optional[Port] = _said("SSH port; null: SSH's own choice")
    private_key: Optional[PathText] = _said("SSH key file on the control host")
    password: Optional[Secret] = _said("reference to the SSH password, never the password")
    jump: Optional[Jump] = _said("SSH jump host: user@bastion:port")
    python: Annotated[Program, Field(description="Python 3.9 or newer on the host")] = "python3"
    interface: Optional[Name] = _said("network interface; null: that of the default route")
    devices: Optional[Devices] = _said('accelerators to use, for example "0-7"')
    node_name: Optional[NodeName] = _said("name of the one instance here; null: p0, d0, …")
    api_port: Optional[Port] = _said("first API port here")
    server: Optional[ServerPart] = _said("server settings of this host alone")


class Instance(Strict):
    hosts: Annotated[List[Name], Field(min_length=1, description="host names, the master first")]
    devices: Optional[Devices] = _said("accelerators on each of its hosts")
    api_port: Optional[Port] = _said("first API port on each of its hosts")
    master_port: Optional[Port] = _said("data-parallel master on its first host")
    server: Optional[ServerPart] = _said("server settings of this instance alone")


class Topology(Strict):
    prefill: List[Instance]
    decode: List[Instance]
    colocated: List[Instance]
    proxy: Optional[Name]


class Offsets(Strict):
    prefill: Offset
    decode: Offset
    colocated: Offset


class Ports(Strict):
    master_base: Port
    api_base: Port
    proxy: Port
    offset: Offsets
    kv_side_channel: Port
    zmq: Port
    ray: Port
    hccl_base: Port
    hccl_span: Annotated[int, Field(ge=1, le=1024)]
    ephemeral_low: Annotated[int, Field(ge=1024, le=65536)]


class Paths(Strict):
    work_dir: PathText
    log_dir: Optional[PathText]
    log_per_instance: bool
    code_dir: Optional[PathText]
    local_code_dir: Optional[PathText]


class Engine(Strict):
    device_kind: Literal["npu", "none"]
    venv: Optional[PathText]
    requirements: Optional[PathText]
    python: Optional[PathText]
    torch_index: Url
    install_disk_mib: Annotated[int, Field(ge=0)]
    memory_per_server_mib: Annotated[int, Field(ge=0)]
    max_transferable_prompt: Optional[Count]


class ModelSettings(Strict):
    path: PathText
    served_name: Line
    generate_seed: Optional[Annotated[int, Field(ge=0, le=2**32 - 1)]]


class Ray(Strict):
    head: Annotated[List[Line], Field(min_length=1)]
    worker: Annotated[List[Line], Field(min_length=1)]
    resource: Name
    deadline_s: Seconds
    server: ServerPart


class Proxy(Strict):
    kind: Literal["auto", "nginx-njs", "vllm-router", "omni-nginx"]
    listen_host: Address
    kv_params: Literal["nixl", "none"]
    prefill_balance: Balance
    decode_balance: Balance
    decode_request_limit: Count
    total_load_batch_size: Count
    auto_balance_batch_size: Count
    worker_processes: Count
    start_core: Optional[Annotated[int, Field(ge=0, le=1023)]]
    worker_connections: Count
    keepalive: Count
    keepalive_timeout: NginxTime
    keepalive_requests: Count
    max_fails: Annotated[int, Field(ge=0)]
    fail_timeout: NginxTime
    connect_timeout: NginxTime
    read_timeout: NginxTime
    client_max_body_size: Size
    client_body_buffer_size: Size
    subrequest_output_buffer_size: Size
    large_client_header_buffers: Buffers
    log_level: Literal["debug", "info", "notice", "warn", "error"]
    log_file: Optional[PathText]
    nginx: Optional[PathText]
    modules_dir: Optional[PathText]
    venv: Optional[PathText]
    install_timeout_s: Seconds
    metrics: bool


class Ranktable(Strict):
    source: Literal["auto", "hccn_tool", "hccn.conf"]
    hccn_tool: Line
    hccn_conf: Line
    npu_smi: Line
    ip: Line
    timeout_s: Seconds
    interval_s: Seconds


class Deploy(Strict):
    on_failure: Literal["rollback", "keep"]
    keep_releases: Count


class Roll(Strict):
    drain_s: Seconds
    kv_s: Seconds


class Doctor(Strict):
    kv_high: Annotated[float, Field(gt=0, le=1)]
    quiet_s: Seconds
    look_again_s: Seconds
    disk_free_mib: Mebibytes
    tail_kib: Count


class Readiness(Strict):
    deadline_s: Seconds
    poll_interval_s: Seconds
    request_timeout_s: Seconds


class Stop(Strict):
    grace_s: Seconds


class SmokeTest(Strict):
    prompt: Annotated[str, Field(min_length=1)]
    max_tokens: Count
    timeout_s: Seconds
    attempts: Count


class Metrics(Strict):
    running: Optional[Line]
    waiting: Optional[Line]
    kv_usage: Optional[Line]
    kv_transferred: Optional[Line]
    kv_recomputed: Optional[Line]


class Fleet(Strict):
    forks: Count
    http_proxy: Optional[Url]
    connect_timeout_s: Seconds
    watch_s: Seconds
    log_tail_lines: Count


class Settings(Strict):
    """The merged configuration."""

    profile: Profile
    runtime: Literal["process", "docker"]
    hosts: Dict[Name, Host]
    topology: Topology
    devices: Devices
    ports: Ports
    paths: Paths
    container: Container
    image: Image
    source: Source
    sync: Sync
    checks: Checks
    keys: Keys
    engine: Engine
    model: ModelSettings
    server: Server
    roles: Roles
    ray: Ray
    proxy: Proxy
    ranktable: Ranktable
    deploy: Deploy
    roll: Roll
    doctor: Doctor
    readiness: Readiness
    stop: Stop
    smoke_test: SmokeTest
    benchmark: Benchmark
    metrics: Metrics
    monitoring: Monitoring
    profiling: Profiling
    fleet: Fleet
    weights: Weights
