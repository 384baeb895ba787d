"""Types of the settings of model checkpoints: conversion and verification."""

from __future__ import annotations

from typing import Annotated, Dict, List, Literal, Optional

from pydantic import Field

from omnikit.schema_base import Strict
from omnikit.setting_types import (
    Count,
    EnvName,
    EnvValue,
    Line,
    PathText,
    Program,
    RelativePath,
    Seconds,
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


class Weights(Strict):
    source: Optional[PathText]
    target: Optional[PathText]
    threads: Optional[Count]
    device: Literal["cpu", "cuda"]
    msmodelslim: Msmodelslim
