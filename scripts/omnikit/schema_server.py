"""The settings of API servers, whole and as parts, and of their profiler."""

from __future__ import annotations

from typing import Annotated, Any, Dict, List, Literal, Optional

from pydantic import Field, create_model

from omnikit.schema_base import Strict
from omnikit.setting_types import (
    ArgValue,
    Count,
    EnvName,
    EnvValue,
    FlagName,
    Line,
    Mebibytes,
    Name,
    NodeName,
    PathText,
    Seconds,
)


class Server(Strict):
    command: Annotated[List[Line], Field(min_length=1)]
    tensor_parallel: Optional[Count]
    args: Dict[FlagName, ArgValue]
    env: Dict[EnvName, EnvValue]
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
