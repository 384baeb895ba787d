"""The result of a verification for people and for programs: lines, JSON, a picture."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any, Optional

from omnikit.errors import ActionError, InputError
from omnikit.log import table
from omnikit.weights import verify_plot

_SHOWN = 20
_HEADER = ("kind", "checked", "scales", "values", "max error", "mean error", "relative", "good")
_ELSEWHERE = "name another folder with --out"


def prepare(folder: Path) -> None:
    """Look whether the report can be written, before hours are spent. Raises InputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"no report can be written there: {error.strerror}.",
            where=f"--out {folder}",
            todo=_ELSEWHERE,
        ) from error


def write(folder: Path, result: dict[str, Any]) -> None:
    """weights.json, and weights.svg where numbers were compared; else an older one is removed.

    Raises ActionError.
    """
    kinds = [kind for kind in result["kinds"] if kind["bound"]]
    picture = folder / "weights.svg"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights.json").write_text(as_json(result) + "\n", encoding="utf-8")
        if kinds:
            bound = max(kind["bound"] for kind in kinds)
            picture.write_text(verify_plot.errors(kinds, bound), encoding="utf-8")
        else:
            picture.unlink(missing_ok=True)  # of another verification
    except OSError as error:
        raise ActionError(
            f"cannot be written: {error.strerror}.", where=str(folder), todo=_ELSEWHERE
        ) from error


def as_json(result: Any) -> str:
    """What is not finite is null: JSON has no word for it."""
    return json.dumps(_finite(result), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_text(result: dict[str, Any], compared: bool) -> str:
    """For a person. compared: with a source."""
    lines = []
    if result["kinds"]:
        lines.append(table([_row(kind) for kind in result["kinds"]], list(_HEADER)))
        lines.append(
            "errors in steps of the scale that the source's row gives;"
            " relative: root mean square, of the values'"
        )
    problems = [*result["problems"], *(text for one in result["kinds"] for text in one["problems"])]
    lines += [f"problem: {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"and {len(problems) - _SHOWN} more problems (--json shows all)")
    lines += _loadable(result.get("loadable"))
    hashes = f"{result['hashes']} files as made" if result["hashes"] else "no hashes recorded"
    numbers = "" if compared else ", numbers not compared (name --source)"
    verdict = "good" if result["ok"] else "NOT GOOD"
    said = f"{result['form']}, {result['quantised']} of {result['tensors']} tensors int8"
    lines.append(f"{result['target']}: {verdict}: {said}, {hashes}{numbers}")
    if result["todo"]:
        lines.append(f"What to do: {result['todo']}")
    return "\n".join(lines)


def _loadable(told: Optional[dict[str, Any]]) -> list[str]:
    from omnikit.weights import loadable

    if told is None:
        return []
    return [f"problem: {told['error']}"] if "error" in told else loadable.as_lines(told)


def _row(kind: dict[str, Any]) -> list[str]:
    head = [kind["kind"], f"{kind['checked']} of {kind['matrices']}"]
    good = "yes" if kind["ok"] else "NO"
    if not kind["bound"]:
        same = "equal" if not kind["different"] else "different"
        return [*head, "-", f"{kind['values']:,}", same, "-", "-", good]
    errors = [kind["max_error_steps"], kind["mean_error_steps"], kind["relative_rms_error"]]
    counts = [f"{kind['scales']:,}", f"{kind['values']:,}"]
    return [*head, *counts, *(f"{error:.4f}" for error in errors), good]
