"""What all parts of the settings' schema share: strictness, and references to secrets."""

from __future__ import annotations

from typing import Any, Optional

from pydantic import BaseModel, ConfigDict, InstanceOf, model_validator
from pydantic.json_schema import SkipJsonSchema

from omnikit.hidden import Hidden
from omnikit.setting_types import EnvName, PathText


class Strict(BaseModel):
    """No unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


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
