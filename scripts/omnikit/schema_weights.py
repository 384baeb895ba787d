"""Types of the settings of model checkpoints: download, conversion, verification."""

from __future__ import annotations

from typing import Annotated, Dict, List, Literal, Optional

from pydantic import Field

from omnikit.schema_base import Secret, Strict
from omnikit.setting_types import (
    Count,
    EnvName,
    EnvValue,
    Line,
    Mebibytes,
    PathText,
    Program,
    RelativePath,
    Seconds,
    WebAddress,
)


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
    threads: Optional[Count]
    device: Literal["cpu", "cuda"]
    download: Download
    msmodelslim: Msmodelslim
