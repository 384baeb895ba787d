"""Types and ranges of every setting. Defaults and explanations stand in configs/defaults.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Dict, List, Literal, Optional, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    TypeAdapter,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from hostkit.base.redact import Hidden
from omnikit.yaml.setting_types import (
    ARG,
    SCALAR,
    AbsolutePath,
    Address,
    Balance,
    Buffers,
    Commit,
    Count,
    Day,
    Devices,
    EnvName,
    EnvValue,
    FlagName,
    ImageName,
    Jump,
    Line,
    Mebibytes,
    ModulesPath,
    Mount,
    Name,
    Network,
    NginxTime,
    NodeName,
    Offset,
    OwnAddress,
    PathText,
    PlainPath,
    Platform,
    Port,
    PrefillBalance,
    Program,
    ProxyKind,
    Registry,
    RelativePath,
    Seconds,
    Size,
    SshOption,
    Suffix,
    Url,
    UrlPath,
    UserName,
    Version,
    WebAddress,
    arg_value,
    env_value,
    known_flags,
    known_variables,
)

# What all parts of the settings' schema share: strictness, and references to secrets.


class Strict(BaseModel):
    """No unknown keys, no silent conversions."""

    # Most of them are only ever part of the whole, for which all is built once.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Secret(Strict):
    """A reference to a secret, never the secret: a file's path or a variable's name."""

    file: Optional[PathText] = None
    variable: Optional[EnvName] = None
    # The secret of another tool's file, hidden; no settings file of ours can give it.
    literal: SkipJsonSchema[Optional[InstanceOf[Hidden]]] = None

    @model_validator(mode="before")
    @classmethod
    def _one_reference(cls, value: Any) -> Any:
        if isinstance(value, Hidden):
            return {"literal": value}
        known = {"file", "variable"}
        given = dict(value) if isinstance(value, dict) else {}
        references = sum(given.get(key) is not None for key in known)
        if "literal" in given or (references != 1 and set(given) <= known):
            raise ValueError(
                "a reference to the secret and not the secret itself: {file: PATH} or"
                " {variable: NAME}"
            )
        return value


def secret_of(value: Any) -> Optional[Secret]:
    """The reference that a value is; None: it is none. What a foreign file hides is a secret."""
    if isinstance(value, Hidden):
        return Secret.model_validate(value)
    if isinstance(value, dict) and value and set(value) <= {"file", "variable"}:
        return Secret.model_validate(value)
    return None


# The settings of what measures: load tests, and what Prometheus and Grafana are told.


class Benchmark(Strict):
    generator: Literal["vllm-0.9", "vllm-0.32"]
    concurrency: Annotated[List[Count], Field(min_length=1)]
    input_tokens: Count
    output_tokens: Count
    requests: Count
    warmups: Annotated[int, Field(ge=0)]


class Monitoring(Strict):
    scrape_interval_s: Count
    down_s: Count
    window_s: Count
    queue: Annotated[int, Field(ge=0)]
    kv_usage: Annotated[float, Field(gt=0, le=1)]
    token_gap: Line
    prefix_queries: Line
    prefix_hits: Line


# Types of the settings that prepare a host: container, image, source, sync, checks, keys.


class Prefixes(Strict):
    prefill: Optional[NodeName]
    decode: Optional[NodeName]
    colocated: Optional[NodeName]
    proxy: Optional[NodeName]


class Container(Strict):
    image: Optional[ImageName]
    image_suffix: Optional[Suffix]
    engine: Literal["auto", "docker", "podman"]
    prefix: Prefixes
    shm_size: Size
    network: Name
    privileged: bool
    user: Optional[UserName]
    workdir: AbsolutePath
    entrypoint: Program
    interactive: bool
    init: bool
    devices: List[AbsolutePath]
    mounts: List[Mount]
    env: Dict[EnvName, EnvValue]
    args: List[Line]
    venv: Optional[AbsolutePath]
    python: Program
    profile: Optional[AbsolutePath]
    profile_library: Optional[Name]
    build: Optional[PathText]
    build_base: Optional[ImageName]
    build_args: Dict[EnvName, EnvValue]
    grace_s: Seconds


class Image(Strict):
    archive: Optional[PathText]
    platform: Optional[Platform]
    mirrors: List[Registry]
    credentials: Optional[Secret]
    at_once: Count
    attempts: Count
    delay_s: Seconds
    answer_s: Seconds
    free_mib: Mebibytes
    pass_on: Literal["auto", "always", "never"]
    older_than_release: Literal["refuse", "accept"]


class Release(Strict):
    engine: Optional[Name]
    date: Optional[Day]
    packages: Dict[Name, Optional[Line]]
    since: Dict[Name, Day]
    renamed: Dict[EnvName, EnvName]
    without: List[Line]


class Source(Strict):
    omniinfer_urls: Annotated[List[Line], Field(min_length=1)]
    omniinfer_ref: Line
    omniinfer_commit: Optional[Commit]
    vllm_urls: Annotated[List[Line], Field(min_length=1)]
    vllm_ref: Line
    vllm_commit: Optional[Commit]
    build: Annotated[List[Line], Field(min_length=1)]
    python: Program
    packages: Annotated[List[Name], Field(min_length=1)]
    optional: List[Name]
    editable: Dict[RelativePath, Dict[EnvName, EnvValue]]
    editable_args: List[Line]
    patches: Optional[RelativePath]
    set_edits_aside: bool
    attempts: Count
    delay_s: Seconds
    stall_s: Seconds
    at_once: Count
    free_mib: Mebibytes


class Sync(Strict):
    exclude: List[Line]
    stall_s: Seconds


class Distribution(Strict):
    on_deploy: bool
    port: Port
    rate: Optional[Size]
    total_rate: Optional[Size]
    limit_s: Annotated[float, Field(gt=0, le=864000)]
    patience_s: Seconds
    stall_s: Seconds
    free_mib: Mebibytes
    wheels: Optional[PathText]


class Caches(Strict):
    use: bool
    variables: List[EnvName]
    ignore: List[FlagName]
    kept: Annotated[int, Field(ge=0, le=100)]


class FreeSpace(Strict):
    model: Mebibytes
    log: Mebibytes
    code: Mebibytes


class Checks(Strict):
    timeout_s: Seconds
    driver_version: Optional[Line]
    driver_oldest: Optional[Version]
    hbm_mib: Optional[Count]
    hbm_used_mib: Mebibytes
    memory_free_mib: Mebibytes
    shm_mib: Mebibytes
    free_mib: FreeSpace
    write_mib_s: Mebibytes
    clock_skew_s: Seconds
    container_engine: Line
    open_files: Annotated[int, Field(ge=0)]
    kernel: Dict[Name, Annotated[int, Field(ge=0)]]
    peers_at_once: Count


class Keys(Strict):
    private_key: PathText
    known_hosts: Optional[PathText]
    comment: Line


# The settings of API servers, whole and as parts, and of their profiler.

_REFERENCE = Secret.model_json_schema()


def _env_value(value: Any) -> Any:
    """A plain value, or a reference to a secret."""
    return secret_of(value) or env_value(value)


def _arg_value(value: Any) -> Any:
    """A plain value or JSON, or a reference to a secret."""
    return secret_of(value) or arg_value(value)


SecretOrEnv = Annotated[
    Any, AfterValidator(_env_value), WithJsonSchema({"anyOf": [SCALAR, _REFERENCE]})
]
SecretOrArg = Annotated[Any, AfterValidator(_arg_value), WithJsonSchema(ARG)]


class Server(Strict):
    command: Annotated[List[Line], Field(min_length=1)]
    tensor_parallel: Optional[Count]
    args: Annotated[Dict[FlagName, SecretOrArg], AfterValidator(known_flags)]
    env: Annotated[Dict[EnvName, SecretOrEnv], AfterValidator(known_variables)]
    prepend: Dict[EnvName, Optional[Line]]
    workdir: Optional[Line]
    prepare: List[Line] = []
    files: Dict[Name, Dict[str, Any]]


_PARTS: Any = {name: (field, None) for name, field in Server.__annotations__.items()}
ServerPart: Any = create_model("ServerPart", __base__=Strict, __module__=__name__, **_PARTS)


class Profiling(Strict):
    instances: List[NodeName]
    start: Literal["endpoint", "steps", "none"]
    server: ServerPart
    steps: Count
    token_threshold: Count
    dir: Optional[PathText]
    free_mib: Mebibytes
    requests: Count
    concurrency: Count
    max_concurrency: Count
    input_words: Count
    output_tokens: Annotated[int, Field(ge=2, le=1_000_000)]
    step_metric: Optional[Line]
    timeout_s: Seconds


# Types of the settings of model checkpoints: download, conversion, verification.


class Msmodelslim(Strict):
    dir: PathText
    script: RelativePath
    python: Program
    set_env: PathText
    flags: List[Line]
    env: Dict[EnvName, EnvValue]
    transformers: Line
    free_ratio: Annotated[float, Field(ge=0)]
    timeout_s: Seconds


class Download(Strict):
    source: Line
    repository: Optional[Line]
    revision: Optional[Line]
    endpoint: Optional[WebAddress]
    token: Optional[Secret]
    include: List[Line]
    exclude: List[Line]
    checksums: Optional[PathText]
    workers: Annotated[int, Field(ge=1, le=64)]
    attempts: Count
    delay_s: Seconds
    timeout_s: Seconds
    free_mib: Mebibytes


class Weights(Strict):
    source: Optional[PathText]
    target: Optional[PathText]
    format: Literal["compressed-tensors", "ascend_v1"]
    threads: Optional[Count]
    download: Download
    msmodelslim: Msmodelslim


ROLES = ("prefill", "decode", "colocated")


class Profile(Strict):
    engine: Name
    omni_version: Name
    hardware: Optional[Name]
    model: Name


# What the API servers of an instance are; configs/defaults.yaml explains them.
Servers = Literal["instance", "ranks", "replicas"]


class Disaggregated(Strict):
    server: Optional[ServerPart] = None


class RolePart(Disaggregated):
    servers: Servers


class Roles(Strict):
    disaggregated: Disaggregated
    prefill: RolePart
    decode: RolePart
    colocated: RolePart


def _said(text: str) -> Any:
    return Field(default=None, description=text)


class Host(Strict):
    address: Annotated[OwnAddress, Field(description="IP that the other hosts reach")]
    connection: Annotated[
        Literal["ssh", "local"], Field(description="local: this machine is the host")
    ] = "ssh"
    user: Optional[Name] = _said("SSH user; null: SSH's own choice")
    port: Optional[Port] = _said("SSH port; null: SSH's own choice")
    private_key: Optional[PathText] = _said("SSH key file on the control host")
    password: Optional[Secret] = _said("reference to the SSH password, never the password")
    jump: Optional[Jump] = _said("SSH jump host: user@bastion:port")
    ssh_options: Optional[List[SshOption]] = _said("more options of ssh: KEY=VALUE")
    python: Annotated[Program, Field(description="Python 3.9 or newer on the host")] = "python3"
    interface: Optional[Name] = _said("network interface; null: that of the default route")
    devices: Optional[Devices] = _said('accelerators to use, for example "0-7"')
    node_name: Optional[NodeName] = _said("name of the one instance here; null: p0, d0, …")
    api_port: Optional[Port] = _said("first API port here")
    server: Optional[ServerPart] = _said("server settings of this host alone")

    @property
    def local(self) -> bool:
        """Whether this machine is the host."""
        return self.connection == "local"


class Part(Strict):
    node_name: Optional[NodeName] = _said("name of the instance's part here; null: p0, d0, …")
    devices: Optional[Devices] = _said("accelerators of the instance here")
    api_port: Optional[Port] = _said("first API port of the instance here")
    kv_port: Optional[Port] = _said("first port of its KV block here")


class Instance(Strict):
    hosts: Annotated[List[Name], Field(min_length=1, description="host names, the master first")]
    devices: Optional[Devices] = _said("accelerators on each of its hosts")
    api_port: Optional[Port] = _said("first API port on each of its hosts")
    master_port: Optional[Port] = _said("data-parallel master on its first host")
    kv_port: Optional[Port] = _said("first port of its KV block, on each of its hosts")
    servers: Optional[Servers] = _said("what its API servers are; null: what its role says")
    parts: Dict[Name, Part] = Field(
        default={}, description="by host: what an instance has there that other instances have not"
    )
    server: Optional[ServerPart] = _said("server settings of this instance alone")
    out: Annotated[
        bool,
        Field(description="taken out: it does not run, the others keep names, ports and ranks"),
    ] = False


class Topology(Strict):
    prefill: List[Instance]
    decode: List[Instance]
    colocated: List[Instance]
    proxy: Optional[Name]

    def serving(self, role: str) -> List[Instance]:
        """The instances of a role that are not taken out."""
        return [entry for entry in getattr(self, role) if not entry.out]


class Offsets(Strict):
    prefill: Offset
    decode: Offset
    colocated: Offset


class RandomPorts(Strict):
    first: Annotated[Port, Field(description="the first that may be taken")]
    last: Optional[Port] = _said("the last one; null: per_device of them for each device")
    per_device: Optional[Count] = _said("from device n: per_device, from first + n * per_device on")

    @model_validator(mode="after")
    def _one_of_two(self) -> RandomPorts:
        if (self.last is None) == (self.per_device is None):
            raise ValueError("either last or per_device")
        return self


class Ports(Strict):
    master_base: Port
    api_base: Port
    proxy: Port
    offset: Offsets
    kv_side_channel: Port
    kv_block: Port
    kv_block_per_device: Count
    zmq: Port
    ray: Port
    hccl_base: Port
    hccl_span: Annotated[int, Field(ge=1, le=1024)]
    random: Dict[Name, RandomPorts]
    ephemeral_low: Annotated[int, Field(ge=1024, le=65536)]


class Paths(Strict):
    work_dir: PathText
    log_dir: Optional[PathText]
    log_per_instance: bool
    run_dir: Optional[PathText]
    code_dir: Optional[PathText]
    local_code_dir: Optional[PathText]
    local_log_dir: Optional[PathText]


class SecretFlag(Strict):
    flag: Annotated[FlagName, Field(description="without its dashes")]
    variable: Annotated[EnvName, Field(description="what the engine reads in its place")]


class Engine(Strict):
    device_kind: Literal["npu", "none"]
    decode_devices: Literal["told", "from_zero"]
    decode_instances: Literal["one", "several"]
    rank_tables: bool
    longer_decode: Literal["refuse", "accept"]
    secret_flags: List[SecretFlag]
    venv: Optional[PathText]
    requirements: Optional[PathText]
    python: Optional[PathText]
    torch_index: Url
    install_disk_mib: Annotated[int, Field(ge=0)]
    memory_per_server_mib: Annotated[int, Field(ge=0)]
    max_transferable_prompt: Optional[Count]


class LetsGo(Strict):
    seconds: Count = Field(description="what it waits where nobody says otherwise")
    variable: Optional[EnvName] = Field(
        default=None, description="the variable that says otherwise"
    )
    extra: Optional[Line] = Field(
        default=None, description="the key of kv_connector_extra_config that says otherwise"
    )


class Connector(Strict):
    handover: Annotated[
        Literal["pull", "push", "none"], Field(description="who moves the KV of a prompt")
    ]
    asked: bool = Field(
        default=True, description="what is pulled is asked for in the request to prefill"
    )
    sizes: bool = Field(
        default=False, description="both sides are told the sizes of both roles, which must be so"
    )
    tensor_parallel: Literal["any", "equal", "multiple"] = Field(
        default="any", description="what prefill's must be to decode's"
    )
    equal: List[FlagName] = Field(default=[], description="flags that must agree on both sides")
    absent: Dict[FlagName, Union[int, str]] = Field(
        default={}, description="what such a flag is where it is not given"
    )
    only: Dict[Literal["prefill", "decode"], Dict[FlagName, int]] = Field(
        default={}, description="flags that a role may have with this value alone"
    )
    lets_go: Optional[LetsGo] = Field(
        default=None, description="how long prefill keeps KV that nobody fetches"
    )


class ModelSettings(Strict):
    path: PathText
    served_name: Line
    placement: bool
    generate_seed: Optional[Annotated[int, Field(ge=0, le=2**32 - 1)]]


class Sizing(Strict):
    engine: Optional[Name]
    release: Optional[Name]
    weights_gib: Optional[Annotated[float, Field(gt=0)]]
    experts_gib: Optional[Annotated[float, Field(ge=0)]]
    kv_kib_per_token: Optional[Annotated[float, Field(gt=0)]]
    kv_heads: Count
    reserve_gib: Annotated[float, Field(ge=0)]


class Ray(Strict):
    head: Annotated[List[Line], Field(min_length=1)]
    worker: Annotated[List[Line], Field(min_length=1)]
    resource: Name
    deadline_s: Seconds
    worker_ports: Annotated[RandomPorts, Field(description="what its workers take at random")]
    server: ServerPart


class Tls(Strict):
    certificate: Optional[AbsolutePath]
    key: Optional[AbsolutePath]
    ca: Optional[PathText]
    name: Optional[Address]


class ProxyGroup(Strict):
    prefill: Count = Field(description="prefill servers")
    decode: Count = Field(description="decode servers")


class Proxy(Strict):
    kind: ProxyKind
    runtime: Optional[Literal["process", "docker"]]
    listen_host: Address
    api_keys: Optional[Secret]
    internal_key: Optional[Secret]
    tls: Tls
    metrics_from: Optional[List[Network]]
    paths: Dict[UrlPath, bool]
    kv_params: Literal["nixl", "mooncake", "layerwise", "none"]
    prefill_balance: PrefillBalance
    decode_balance: Balance
    prefix_load: Annotated[float, Field(ge=1, le=100)]
    pd_score_limit: Literal["decode_req_limit", "max_num_seqs"]
    decode_request_limit: Count
    total_load_batch_size: Count
    auto_balance_batch_size: Count
    worker_processes: Annotated[int, Field(ge=1, le=1024)]
    start_core: Optional[Annotated[int, Field(ge=0, le=1023)]]
    stream_ops: Optional[Literal["off", "add", "set_opt"]]
    pd_policy: Literal["sequential", "parallel", "aggregation"]
    schedule_algo: Literal["default", "earliest_batch"]
    max_batch_tokens: Count
    starvation_timeout: Count
    request_slots: Count
    max_tokens_weight: Optional[Count]
    groups: Optional[Annotated[List[ProxyGroup], Field(min_length=1)]]
    model_path: Optional[ModulesPath]
    worker_connections: Annotated[int, Field(ge=8, le=1_000_000)]
    keepalive: Count
    keepalive_timeout: NginxTime
    keepalive_requests: Count
    retries: Annotated[int, Field(ge=0, le=100)]
    max_fails: Annotated[int, Field(ge=0, le=1_000_000)]
    fail_timeout: NginxTime
    probe_interval: NginxTime
    probe_timeout: NginxTime
    silence: NginxTime
    stall: NginxTime
    stall_metric: Optional[Line]
    kv_safe: NginxTime
    kv_expired_metric: Optional[Line]
    kv_late_metric: Optional[Line]
    comeback: Literal["answer", "health"]
    connect_timeout: NginxTime
    read_timeout: NginxTime
    client_timeout: NginxTime
    client_connections: Annotated[int, Field(ge=0, le=1_000_000)]
    client_requests: Annotated[int, Field(ge=0, le=1_000_000)]
    client_half_sent: Annotated[int, Field(ge=0, le=1_000_000)]
    client_max_body_size: Size
    client_body_buffer_size: Size
    subrequest_output_buffer_size: Size
    large_client_header_buffers: Buffers
    log_level: Literal["debug", "info", "notice", "warn", "error"]
    log_file: PlainPath
    nginx: Optional[PathText]
    modules_dir: Optional[ModulesPath]
    venv: Optional[PlainPath]
    install_timeout_s: Seconds
    metrics: bool


class Ranktable(Strict):
    source: Literal["auto", "hccn_tool", "hccn.conf"]
    hccn_tool: Line
    hccn_conf: Line
    device_address: Literal["ip", "vnic"]
    device_ping: Literal["ping", "hccs_ping"]
    npu_smi: Line
    ip: Line
    timeout_s: Seconds
    interval_s: Seconds


class Deploy(Strict):
    on_failure: Literal["rollback", "keep"]
    warm: bool
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


def _web_address(value: Any) -> Any:
    """An address, or a reference to one that is a secret."""
    return secret_of(value) or _ADDRESS.validate_python(value)


_ADDRESS: TypeAdapter[str] = TypeAdapter(Url)
SecretOrUrl = Annotated[
    Any,
    AfterValidator(_web_address),
    WithJsonSchema({"anyOf": [_ADDRESS.json_schema(), _REFERENCE]}),
]


class Hooks(Strict):
    command: List[Line]
    webhook: Optional[SecretOrUrl]
    authorization: Optional[Secret]
    timeout_s: Seconds


class Restart(Strict):
    policy: Literal["never", "on-failure"]
    delay_s: Seconds
    delay_max_s: Seconds
    limit: Count
    settled_s: Seconds
    watchdog_s: Annotated[float, Field(ge=0)]
    boot: Literal["auto", "systemd", "never"]


class Logs(Strict):
    max_mib: Mebibytes
    files: Count
    fetch_file_mib: Mebibytes
    fetch_mib: Mebibytes


class SmokeTest(Strict):
    prompt: Annotated[str, Field(min_length=1)]
    max_tokens: Count
    timeout_s: Seconds
    attempts: Count


class VerifyServing(Strict):
    on_change: Literal["alike", "short", "full", "none"]
    alone: bool
    references: Count
    tolerance: Optional[Annotated[float, Field(ge=0)]]
    answer_tokens: Count
    long_words: Count
    requests: Count
    at_once: Annotated[int, Field(ge=1, le=64)]
    timeout_s: Seconds
    equal: List[FlagName]


class Metrics(Strict):
    running: Optional[Line]
    waiting: Optional[Line]
    kv_usage: Optional[Line]
    kv_transferred: Optional[Line]
    kv_recomputed: Optional[Line]
    answered: Optional[Line]
    generated: Optional[Line]
    first_token_s: Optional[Line]
    first_tokens: Optional[Line]


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
    release: Release
    source: Source
    sync: Sync
    distribution: Distribution
    caches: Caches
    checks: Checks
    keys: Keys
    engine: Engine
    connectors: Dict[Name, Connector]
    model: ModelSettings
    sizing: Sizing
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
    restart: Restart
    hooks: Hooks
    logs: Logs
    smoke_test: SmokeTest
    verify_serving: VerifyServing
    benchmark: Benchmark
    metrics: Metrics
    monitoring: Monitoring
    profiling: Profiling
    fleet: Fleet
    weights: Weights
