"""The verification of a converted checkpoint (structure, hashes, scales, numbers), and its result
for people and for programs: lines, JSON, a picture.
"""

from __future__ import annotations

import json
import math
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import table
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.checkpoint.hashes import MANIFEST, of_file, published
from omnikit.weights.meter import Meter
from omnikit.weights.verify import structure as verify_structure

_SHOWN = 20
_HEADER = ("kind", "checked", "scales", "values", "max error", "mean error", "relative", "good")
_UNHASHED = (
    "no published hashes are there (a hub's, or SHA256SUMS), so that a changed byte cannot be"
    " noticed"
)
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
    lines += [f"not looked into: {one}" for one in result["unknown"]]
    lines += [f"note: {text}" for one in result["kinds"] for text in one["notes"]]
    hashes = "no hashes recorded, so a changed byte is not noticed"
    if result["hashes"]:
        hashes = f"{result['hashes']} files as {result['hashed']}"
    numbers = "" if compared else ", numbers not compared (name --source)"
    if result["source_hashes"]:
        lines.append(f"source: {result['source_hashes']} files as published")
    elif compared:
        lines.append(f"source: {_UNHASHED}")
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


def verify(
    target: Path,
    source: Optional[Path],
    sample: Optional[tuple[int, int]],
    threads: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The findings: {form, problems, todo, hashes, scales, kinds, ok}.

    sample: (matrices of a kind, rows of a matrix) whose values are compared with the source; None:
    all. Of these matrices the scales of all rows are compared too; and of all int8 matrices every
    scale is read and must be a number above 0.
    Raises InputError: no checkpoint there, or none of a form that is known.
    """
    from omnikit.weights.verify import numbers as verify_numbers  # late: numpy

    made = headers.look(target)
    verify_structure.recognise(made)  # or else refused, before the source is read
    origin = w8a8.plan(headers.read(source), w8a8.format_of(made)) if source else None
    structure = verify_structure.look(made, origin)
    hashes, problems = _hashes(target, made.shards, threads, say)
    vouched = None
    if source:
        vouched, more = _as_published(source, threads, say)
        problems += [f"source: {problem}" for problem in more]
    read = Meter(0, say, "of scales read")
    problems += verify_numbers.scales(made, structure.quantised, threads, read)
    result: dict[str, Any] = {
        "target": str(target),
        "form": structure.form,
        "quantised": len(structure.quantised),
        "tensors": len(made.tensors),
        "problems": list(dict.fromkeys(structure.problems + problems)),  # some are seen twice
        "unknown": structure.unknown,
        "hashes": hashes,
        "hashed": "made" if (target / MANIFEST).exists() else "published",
        "source_hashes": vouched,
        "kinds": [],
    }
    if origin is not None:
        each, rows = sample or (None, None)
        meter = Meter(0, say, "compared")
        slim = w8a8.numbers_of(made) == w8a8.SLIM
        kinds = verify_numbers.compare(
            origin, made, slim, rows, each, threads, meter, all_scales=True
        )
        result["kinds"] = [kind.report() for kind in kinds]
        result["sample"] = list(sample) if sample else "all"
    result["ok"] = not result["problems"] and all(kind["ok"] for kind in result["kinds"])
    result["todo"] = None if result["ok"] else _todo(result, target)
    return result


def _todo(result: dict[str, Any], target: Path) -> str:
    """What mends most of it."""
    if any("finish_checkpoint.py" in problem for problem in result["problems"]):
        return f"invoke finish-checkpoint --dir {target}, then verify again"
    found = [*result["problems"], *(text for one in result["kinds"] for text in one["problems"])]
    if all("does not belong here" in problem for problem in found):
        return "move the files that do not belong here away"
    if all(problem.startswith("source: ") for problem in found):
        return "fetch these files of the source again (invoke download-weights --verify), convert"
    method = {
        verify_structure.MSMODELSLIM: " --method msmodelslim",
        w8a8.ASCEND: f" --format {w8a8.ASCEND}",
    }.get(result["form"], "")
    return (
        "where this is a copy, copy the files that are named again; else convert again into an"
        f" empty folder: invoke convert-weights{method}"
    )


def _hashes(
    target: Path, shards: Sequence[str], threads: int, say: Callable[[str], None]
) -> tuple[int, list[str]]:
    """How many files are as the manifest of the conversion says, and what is wrong. shards: that
    the index names.
    """
    file = target / MANIFEST
    if not file.exists():
        return _as_published(target, threads, say)
    try:
        files = headers.read_json(file).get("files")
    except InputError as error:
        return 0, [f"{file.name} {error.what}"]
    if not isinstance(files, dict):
        return 0, [f"{file.name} has no list of files"]
    odd = [name for name in files if not headers.is_name(name)]
    if odd:
        return 0, [f"{file.name} names {ascii(odd[0])[:80]}, which is no file's name"]
    hashes = {name: one["sha256"] for name, one in files.items() if _has_hash(one)}
    problems = [f"{file.name} has no hash of {name}" for name in files if name not in hashes]
    problems += [f"{name} is missing" for name in files if not (target / name).is_file()]
    there = [name for name in hashes if (target / name).is_file()]
    changed = _changed(target, there, hashes, threads, say)
    problems += [f"{name} is not what it was when it was made" for name in changed]
    strange = sorted(name for name in shards if name not in files and (target / name).is_file())
    problems += [f"{name} does not belong here: the manifest does not name it" for name in strange]
    return len(there) - len(changed), problems


def _as_published(folder: Path, threads: int, say: Callable[[str], None]) -> tuple[int, list[str]]:
    """How many files of weights are as they were published, and what is wrong with others. Texts
    may have been edited since, as for msmodelslim.
    """
    wanted, by = published(folder)
    weights = [name for name in wanted if name.endswith(".safetensors")]
    there = [name for name in weights if (folder / name).is_file()]
    changed = _changed(folder, there, wanted, threads, say)
    problems = [f"{name} is not as it was published ({by})" for name in changed]
    return len(there) - len(changed), problems


def _has_hash(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("sha256"), str)


def _changed(
    target: Path,
    names: Sequence[str],
    hashes: dict[str, str],
    threads: int,
    say: Callable[[str], None],
) -> list[str]:
    meter = Meter(sum((target / name).stat().st_size for name in names), say, "hashed")

    def check(name: str) -> bool:
        wanted = hashes[name] if ":" in hashes[name] else f"sha256:{hashes[name]}"
        return of_file(target / name, wanted, meter.add) == wanted

    try:
        with ThreadPoolExecutor(threads) as pool:
            same = list(pool.map(check, names))
    except OSError as error:
        raise ActionError(
            f"cannot be read: {error}.",
            where=str(target),
            todo="check that you may read it, and the disk",
        ) from error
    return [name for name, one in zip(names, same) if not one]
