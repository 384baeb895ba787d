"""Types of the settings that convert weights."""

from __future__ import annotations

from typing import Annotated, Dict, List

from pydantic import Field

from omnikit.schema_base import Strict
from omnikit.setting_types import EnvName, EnvValue, Line, PathText, Program, RelativePath, Seconds


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
    msmodelslim: Msmodelslim
