"""What was found of all matrices of one kind, and how far numbers may be off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# The native arithmetic is float32: a value of up to 127 steps is off by two roundings of 2^-24, and
# so is the step itself.
_FLOAT32 = 2 * 2.0**-24
_NATIVE_SCALE = 1e-6
# One rounding to a dtype: half of the last bit.
_ROUNDING = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 0.0}


@dataclass(frozen=True)
class Limits:
    """scale: relative difference from what the formula gives. steps: error of a value."""

    scale: float
    steps: float

    @classmethod
    def of(cls, native: bool, source_dtype: str, scale_dtype: str) -> Limits:
        """msmodelslim opens FP8 to bf16 before it quantises, and may keep its scales in 16 bits:
        either moves a value of 127 steps by a part of itself.
        """
        if native:
            return cls(_NATIVE_SCALE, 0.5 + 127.5 * _FLOAT32)
        values = _ROUNDING["BF16"] if source_dtype == "F8_E4M3" else 0.0
        off = (1 + values) * (1 + _ROUNDING[scale_dtype]) * (1 + _NATIVE_SCALE) - 1
        return cls(off, 0.5 + 127.5 * off)


@dataclass
class Kind:
    """All matrices of one kind, for example mlp.experts.up_proj; errors in steps.

    integers: those of the values that int8 stands for. scales: of rows, compared; wrong_scales of
    these are not what the formula gives, the first is wrong_scale. bound: of errors, 0 where no
    int8 stands for the values. different: where what must be equal is not: "TENSOR: row N".
    """

    name: str
    what: str
    matrices: int = 0
    checked: int = 0
    values: int = 0
    integers: int = 0
    scales: int = 0
    wrong_scales: int = 0
    wrong_scale: str = ""
    largest: float = 0.0
    worst: str = ""
    error_sum: float = 0.0
    square_error: float = 0.0
    square_value: float = 0.0
    bound: float = 0.0
    different: str = ""

    def add(self, part: Kind) -> None:
        """What was found of one matrix."""
        self.checked += part.checked
        self.values += part.values
        self.integers += part.integers
        self.scales += part.scales
        self.wrong_scales += part.wrong_scales
        self.wrong_scale = self.wrong_scale or part.wrong_scale
        self.error_sum += part.error_sum
        self.square_error += part.square_error
        self.square_value += part.square_value
        self.bound = max(self.bound, part.bound)
        self.different = self.different or part.different
        if part.largest > self.largest:
            self.largest, self.worst = part.largest, part.worst

    def problems(self) -> list[str]:
        """What is wrong, each a sentence without a full stop."""
        found = []
        if self.different:
            found.append(f"not equal to the source: {self.different}")
        if self.wrong_scale:
            more = f" ({self.wrong_scales} rows of this kind)" if self.wrong_scales > 1 else ""
            found.append(f"a scale that the formula does not give: {self.wrong_scale}{more}")
        if self.largest > self.bound:
            error = f"an error of {self.largest:.4g} steps, at most {self.bound:.4f} expected"
            found.append(f"{error}: {self.worst}")
        return found

    def report(self) -> dict[str, Any]:
        """For programs."""
        mean = self.error_sum / self.integers if self.integers else 0.0
        relative = (self.square_error / self.square_value) ** 0.5 if self.square_value else 0.0
        problems = self.problems()
        return {
            **{"kind": self.name, "what": self.what, "matrices": self.matrices},
            **{"checked": self.checked, "values": self.values, "max_error_steps": self.largest},
            **{"mean_error_steps": mean, "relative_rms_error": relative, "bound": self.bound},
            **{"worst": self.worst, "different": self.different, "scales": self.scales},
            **{"wrong_scales": self.wrong_scales, "problems": problems, "ok": not problems},
        }
