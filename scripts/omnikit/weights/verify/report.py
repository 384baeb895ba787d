"""The result of a verification for people and for programs: lines, JSON, a picture."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any, Sequence

from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import table

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
            draw(picture, kinds, bound)
        else:
            picture.unlink(missing_ok=True)  # of another verification
    except OSError as error:
        raise ActionError(
            f"cannot be written: {error.strerror}.", where=str(folder), todo=_ELSEWHERE
        ) from error


def draw(path: Path, kinds: Sequence[dict[str, Any]], bound: float) -> None:
    """Bars of the largest and the mean error of each kind, in steps, and the bound as a line."""
    import matplotlib  # late: it takes a second
    from matplotlib.figure import Figure

    # Text stays text; and the same result gives the same picture.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "omnikit"}):
        figure = Figure(figsize=(9, 1.5 + 0.4 * len(kinds)), layout="constrained")
        plot = figure.subplots()
        for key, label, shift in (
            ("max_error_steps", "largest", -0.2),
            ("mean_error_steps", "mean", 0.2),
        ):
            places = [at + shift for at in range(len(kinds))]
            bars = plot.barh(places, [kind[key] for kind in kinds], 0.4, label=label)
            plot.bar_label(bars, fmt="%.4f", padding=3)
        plot.axvline(bound, color="black", linestyle="dashed", label=f"bound {bound:.4f}")
        plot.set_yticks(range(len(kinds)), [kind["kind"] for kind in kinds])
        plot.invert_yaxis()
        plot.set_xlabel("rounding error in steps of the row's scale")
        figure.legend(loc="outside upper right", ncols=3)
        figure.savefig(path, metadata={"Date": None})


def as_json(result: Any) -> str:
    """What is not finite is null: JSON has no word for it."""
    return json.dumps(_finite(result), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_text(result: dict[str, Any], compared: bool, more: Sequence[str] = ()) -> str:
    """For a person. compared: with a source. more: lines of what else was tried."""
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
    lines += more
    hashes = f"{result['hashes']} files as made" if result["hashes"] else "no hashes recorded"
    numbers = "" if compared else ", numbers not compared (name --source)"
    verdict = "good" if result["ok"] else "NOT GOOD"
    said = f"{result['form']}, {result['quantised']} of {result['tensors']} tensors int8"
    lines.append(f"{result['target']}: {verdict}: {said}, {hashes}{numbers}")
    if result["todo"]:
        lines.append(f"What to do: {result['todo']}")
    return "\n".join(lines)


def _row(kind: dict[str, Any]) -> list[str]:
    head = [kind["kind"], f"{kind['checked']} of {kind['matrices']}"]
    good = "yes" if kind["ok"] else "NO"
    if not kind["bound"]:
        same = "equal" if not kind["different"] else "different"
        return [*head, "-", f"{kind['values']:,}", same, "-", "-", good]
    errors = [kind["max_error_steps"], kind["mean_error_steps"], kind["relative_rms_error"]]
    counts = [f"{kind['scales']:,}", f"{kind['values']:,}"]
    return [*head, *counts, *(f"{error:.4f}" for error in errors), good]
