"""Types of the settings that prepare a host: container, image, source, sync, checks, keys."""

from __future__ import annotations

from typing import Annotated, Dict, List, Literal, Optional

from pydantic import Field

from omnikit.schema_base import Secret, Strict
from omnikit.setting_types import (
    AbsolutePath,
    Commit,
    Count,
    EnvName,
    EnvValue,
    ImageName,
    Line,
    Mebibytes,
    Mount,
    Name,
    NodeName,
    PathText,
    Program,
    Registry,
    RelativePath,
    Seconds,
    Size,
    UserName,
)


class Prefixes(Strict):
    prefill: Optional[NodeName]
    decode: Optional[NodeName]
    colocated: Optional[NodeName]
    proxy: Optional[NodeName]


class Container(Strict):
    image: Optional[ImageName]
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
    build: Optional[PathText]
    build_base: Optional[ImageName]
    build_args: Dict[EnvName, EnvValue]
    grace_s: Seconds


class Image(Strict):
    mirrors: List[Registry]
    credentials: Optional[Secret]
    at_once: Count
    attempts: Count
    delay_s: Seconds
    free_mib: Mebibytes


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
    attempts: Count
    delay_s: Seconds
    stall_s: Seconds
    at_once: Count
    free_mib: Mebibytes


class Sync(Strict):
    exclude: List[Line]
    stall_s: Seconds


class FreeSpace(Strict):
    model: Mebibytes
    log: Mebibytes
    code: Mebibytes


class Checks(Strict):
    timeout_s: Seconds
    driver_version: Optional[Line]
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
