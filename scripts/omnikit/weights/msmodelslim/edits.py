"""What the install guide changes in a DeepSeek checkpoint before and after msmodelslim.

The known lines of two files as they are published and written; others are refused, with what was
expected and what was found. Each original is kept beside as NAME.orig, and can be put back.

A file may be a link into a Hugging Face cache, where other checkpoints use it too. So nothing is
ever written through a link: the link itself becomes NAME.orig, and a file takes its place.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

from hostkit.base.errors import ActionError, InputError, ManyErrors, ToolkitError
from hostkit.base.values import parsed
from hostkit.base.writing import written
from hostkit.files import regular
from omnikit.weights.checkpoint.architecture import CONVERTED, SERVED

UNCONVERTED = "name the folder of the result, or convert first: invoke run-msmodelslim"
# Of DeepSeek-V3 and -R1, without the MTP layer.
LAYERS = 61

NAME = "is_flash_attn_2_available"
_IMPORT = re.compile(rf"^    {NAME},?[ \t]*(#.*)?\r?$", re.MULTILINE)
_BLOCK = (
    f"if {NAME}():",
    "    from flash_attn import flash_attn_func, flash_attn_varlen_func",
    "    from flash_attn.bert_padding import index_first_axis, pad_input, unpad_input  # noqa",
)
_LINES = re.compile("^" + "\r?\n".join(map(re.escape, _BLOCK)) + "\r?$", re.MULTILINE)
_CLASS = re.compile(r"Deepseek\w*ForCausalLM")
_SPACE = r"[ \t\r\n]*"
# How the members that are edited may stand in config.json.
_VALUES = {
    "quantization_config": r"(?:\{[^{}]*\}|null)",
    "architectures": rf'(?:"[^"]*"|\[{_SPACE}"[^"]*"{_SPACE}\])',
    "num_hidden_layers": r"\d+",
}


@dataclass(frozen=True)
class Change:
    """What is to happen to one file: its text before and after, and why."""

    path: Path
    before: str
    after: str
    done: tuple[str, ...]

    @property
    def original(self) -> Path:
        """Where the file is kept as it was."""
        return self.path.with_name(f"{self.path.name}.orig")

    @property
    def diff(self) -> str:
        """The change as a unified diff; without line ends."""
        old, new = (
            text.replace("\r\n", "\n").removesuffix("\n").split("\n")
            for text in (self.before, self.after)
        )
        names = (f"{self.path.name}.orig", self.path.name)
        if self.done == (RESTORED,):
            names = (names[1], names[0])
        return "\n".join(difflib.unified_diff(old, new, *names, lineterm=""))


RESTORED = "the original is put back"


def plan(folder: Path, edits: Edits) -> list[Change]:
    """What the edits would do to the files of a folder; one without a change has no "done".

    Raises InputError, for all files at once, where one is missing or not as expected.
    """
    errors: list[ToolkitError] = []
    changes: list[Change] = []
    for name, edit in edits.items():
        try:
            changes.append(_planned(folder / name, edit))
        except InputError as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else ManyErrors(errors)
    return changes


def _planned(path: Path, edit: Callable[[str], Edited]) -> Change:
    text = read(path)
    try:
        edited = edit(text)
    except Unexpected as error:
        raise InputError(
            f"{error}.",
            where=str(path),
            todo=error.todo
            or "check that this is the checkpoint you mean; the file is left as it is",
        ) from None
    change = Change(path, text, edited.text, edited.done)
    if edited.done and os.path.lexists(change.original) and read(change.original) != text:
        raise InputError(
            f"{change.original.name} is there already, and is not this file as it is now.",
            where=str(path),
            todo=f"compare them (diff {change.original} {path}), then move one of them away",
        )
    return change


def plan_revert(folder: Path, edits: Edits) -> list[Change]:
    """What it takes to put the originals back; a file without one has no "done".

    Raises InputError where a file has changes besides ours, which would be lost.
    """
    changes = []
    for name, edit in edits.items():
        path = folder / name
        original = path.with_name(f"{name}.orig")
        if not os.path.lexists(original):
            now = read(path)
            changes.append(Change(path, now, now, ()))
            continue
        before = read(original)
        if not os.path.lexists(path):  # nothing there that could be lost
            changes.append(Change(path, "", before, (RESTORED,)))
            continue
        now = read(path)
        try:
            ours = edit(before).text
        except Unexpected:
            ours = before
        if now not in (ours, before):
            raise InputError(
                "has changes besides those of this tool, which would be lost.",
                where=str(path),
                todo=f"diff {original} {path}; then, if they may go: mv {original} {path}",
            )
        changes.append(Change(path, now, before, (RESTORED,)))
    return changes


def apply(changes: list[Change]) -> None:
    """Carry changes out, whole files only. Raises ActionError where the folder is not writable."""
    for change in changes:
        if not change.done:
            continue
        try:
            if change.done == (RESTORED,):
                change.original.replace(change.path)
            else:
                _keep(change)
                _write(change)
        except OSError as error:
            folder = change.path.parent
            raise ActionError(
                f"cannot be replaced: {error.strerror}.",
                where=str(change.path),
                todo="free some space, or see who may write there:"
                f" df -h {folder}; ls -ld {folder}",
            ) from error


def told(changes: Sequence[Change], *, would: bool) -> str:
    """The changes for people: what each file gets, and the differences."""
    lines = []
    for change in changes:
        if not change.done:
            lines.append(f"{change.path}: unchanged")
        for text in change.done:
            lines.append(f"{change.path}: {'would be done: ' if would else ''}{text}")
        if change.done:
            lines.append(change.diff)
    return "\n".join(line for line in lines if line)


def data(folder: Path, changes: Sequence[Change], *, would: bool) -> dict[str, Any]:
    """The same for programs."""
    done = any(change.done for change in changes)
    return {
        "folder": str(folder),
        "result": ("would be changed" if would else "changed") if done else "unchanged",
        "files": [
            {"file": change.path.name, "changes": list(change.done), "diff": change.diff}
            for change in changes
        ],
    }


def carry_out(options: argparse.Namespace, edits: Edits) -> int:
    """A command: dir, revert, dry_run, json. Its exit code."""
    planned = plan_revert if options.revert else plan
    changes = planned(options.dir, edits)
    if not options.dry_run:
        apply(changes)
    if options.json:
        print(json.dumps(data(options.dir, changes, would=options.dry_run)))
    else:
        print(told(changes, would=options.dry_run))
    return 0


def read(path: Path) -> str:
    """A file's text with its own line ends. Raises InputError."""
    try:
        return regular.data(path).decode("utf-8")
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}.",
            where=str(path),
            todo="give the folder of a whole checkpoint",
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"is no UTF-8 text: {error}.",
            where=str(path),
            todo="download it again: as published it is UTF-8",
        ) from error


def _keep(change: Change) -> None:
    """The file, or the link that stands there, as NAME.orig."""
    if os.path.lexists(change.original):
        return  # of a run that was cut off here; plan() has compared it
    if change.path.is_symlink():
        change.original.symlink_to(change.path.readlink())
        return
    with written(change.original) as beside:
        shutil.copy2(change.path, beside)


def _write(change: Change) -> None:
    mode = change.path.stat().st_mode & 0o7777
    with written(change.path) as beside:
        with beside.open("wb") as file:
            file.write(change.after.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(mode)


class Unexpected(ValueError):
    """The file does not look as it should; what was expected and what was found.

    todo: where there is more to do than to see whether it is the right file.
    """

    def __init__(self, what: str, todo: str = "") -> None:
        super().__init__(what)
        self.todo = todo


@dataclass(frozen=True)
class Edited:
    """A text after the edit, and what was done, in words; nothing: it was so already."""

    text: str
    done: tuple[str, ...]


Edits = Mapping[str, Callable[[str], Edited]]


def before() -> Edits:
    """What a downloaded checkpoint needs before msmodelslim."""
    return {"modeling_deepseek.py": modeling, "config.json": config_before}


def after(layers: int = LAYERS, todo: str = "") -> Edits:
    """What its result needs before it can be served. todo: for another number of layers."""
    return {"config.json": lambda text: config_after(text, layers, todo)}


def refuse_unconverted(folder: Path) -> None:
    """Raise InputError for a source: prepared, its config.json is like that of a result."""
    for index in folder.glob("*.safetensors.index.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            names = regular.parsed(index).get("weight_map", {})
            if any(str(name).endswith(".weight_scale_inv") for name in names):
                raise InputError(
                    "names fp8 weights (weight_scale_inv): nothing was converted here.",
                    where=str(index),
                    todo=UNCONVERTED,
                )


def modeling(text: str) -> Edited:
    """modeling_deepseek.py without flash_attn, which Ascend does not have.

    transformers reads the file's text before it loads it and wants every package installed that a
    line imports, in whatever branch it stands (4.48.2 leaves this very block out, older versions do
    not); so the lines must be comments, as the install guide makes them. Known are the lines as
    DeepSeek publishes them; a file that has others is refused with the difference. flash_attn_func
    and the others stay undefined, as they are in the original without flash_attn: only the
    attention classes for flash_attn use them, which are not chosen then. Raises Unexpected.
    """
    tree = _parse(text)
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if not any(_CLASS.fullmatch(name) for name in classes):
        found = ", ".join(classes[:5]) or "no class"
        raise Unexpected(f"expected a class Deepseek…ForCausalLM, found {found}")
    if not _wants_flash(tree):
        return Edited(text, ())
    edited, blocks = _LINES.subn(lambda found: re.sub("(?m)^", "# ", found[0]), text)
    edited, imports = _IMPORT.subn(lambda found: f"    # {found[0][4:]}", edited)
    used = sum(isinstance(node, ast.Name) and node.id == NAME for node in ast.walk(tree))
    try:
        others = used > blocks or _wants_flash(_parse(edited))
    except Unexpected:
        others = True
    if others:
        raise _other(text)
    done = [f"the block 'if {NAME}():' is commented out"] * blocks
    return Edited(edited, (*done, *[f"the import of {NAME} is taken out"] * imports))


def config_before(text: str) -> Edited:
    """config.json without quantization_config: msmodelslim reads the fp8 weights by itself.

    Raises Unexpected where it is no fp8 checkpoint of DeepSeek-V3's architecture.
    """
    values = _values(text)
    if values.get("architectures") != [SERVED]:
        raise Unexpected(
            f'expected "architectures": ["{SERVED}"], found {_found(values, "architectures")}'
        )
    if "quantization_config" not in values:
        return Edited(text, ())
    method = _method(values)
    # null is as good as none for us, but transformers takes the key alone for a configuration.
    if method not in ("fp8", None):
        raise Unexpected(
            f'expected a quantization_config with "quant_method": "fp8", found {method!r}:'
            " these weights are converted already, or are no fp8 weights"
        )
    return Edited(_edited(text, "quantization_config", None), ("quantization_config is removed",))


def config_after(text: str, layers: int, todo: str = "") -> Edited:
    """config.json with the architecture's name that servers know, and no MTP layer in the count.

    layers: of the model without its MTP layer. todo: what to do where it has another number.
    Raises Unexpected for any other state.
    """
    values = _values(text)
    if _method(values) == "fp8":
        raise Unexpected("expected what msmodelslim wrote, found fp8 weights", UNCONVERTED)
    done = []
    if values.get("architectures") in (CONVERTED, [CONVERTED]):
        text = _edited(text, "architectures", [SERVED])
        done.append(f'architectures: {CONVERTED} -> ["{SERVED}"]')
    elif values.get("architectures") != [SERVED]:
        raise Unexpected(
            f'expected "architectures": "{CONVERTED}" (or ["{SERVED}"]),'
            f" found {_found(values, 'architectures')}"
        )
    if values.get("num_hidden_layers") == layers + 1:
        text = _edited(text, "num_hidden_layers", layers)
        done.append(f"num_hidden_layers: {layers + 1} -> {layers}")
    elif values.get("num_hidden_layers") != layers:
        raise Unexpected(
            f'expected "num_hidden_layers": {layers + 1} (or {layers}),'
            f" found {_found(values, 'num_hidden_layers')}",
            todo,
        )
    return Edited(text, tuple(done))


def _parse(text: str) -> ast.Module:
    try:
        return ast.parse(text.removeprefix("\ufeff"))
    except (SyntaxError, ValueError) as error:
        raise Unexpected(
            f"expected a Python file, found what Python cannot read: {error}"
        ) from None


def _wants_flash(tree: ast.AST) -> bool:
    """Whether a file uses the name or imports flash_attn, anywhere."""
    for node in ast.walk(tree):
        names = [node.id] if isinstance(node, ast.Name) else []
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
        if any(name == NAME or name.split(".")[0] == "flash_attn" for name in names):
            return True
    return False


def _other(text: str) -> Unexpected:
    """Another file than the published one, and in what."""
    lines = (f"{at}: {line.rstrip()}" for at, line in enumerate(text.split("\n"), 1))
    seen = [line for line in lines if re.search(rf"\d: [^#]*\b({NAME}|flash_attn)\b", line)]
    return Unexpected(
        "expected flash_attn in these lines alone, as DeepSeek publishes them:\n"
        + "\n".join(("", f"    {NAME},", *_BLOCK))
        + "\n\nfound\n\n"
        + "\n".join(seen),
        "take the file as it was published, or comment the lines that are found out by hand",
    )


def _method(values: dict[str, Any]) -> Any:
    """quant_method of the quantization_config, None where there is none; else what stands there."""
    found = values.get("quantization_config")
    return found.get("quant_method", "no quant_method") if isinstance(found, dict) else found


def _values(text: str) -> dict[str, Any]:
    try:
        values = parsed(text)
    except ValueError as error:
        raise Unexpected(f"expected a JSON object, found what is none: {error}") from None
    if not isinstance(values, dict):
        raise Unexpected("expected a JSON object ({...}), found what is no JSON object")
    return values


def _found(values: dict[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "none"


def _edited(text: str, key: str, value: Any) -> str:
    """The text with another value for a member, or without it (None); every other byte stays.

    Reading and writing the file anew would change its line breaks, its numbers (1e-06) and its
    escapes; a difference should show what was changed and nothing else. Raises Unexpected: the
    member does not stand there once, in a form that is known.
    """
    wanted = _values(text)
    member = rf'("{key}"{_SPACE}:{_SPACE}){_VALUES[key]}'
    new = ""
    patterns = [
        rf"{member}{_SPACE},{_SPACE}",
        rf",{_SPACE}{member}",
    ]  # the last has its comma before
    if value is None:
        del wanted[key]
    else:
        wanted[key], new, patterns = value, rf"\g<1>{json.dumps(value)}", [member]
    for pattern in patterns:
        edited, count = re.subn(pattern, new, text)
        with contextlib.suppress(ValueError):
            if count == 1 and list(json.loads(edited).items()) == list(wanted.items()):
                return edited
    found = re.findall(rf'"{key}".{{0,80}}', text, re.DOTALL)
    raise Unexpected(
        f'expected one "{key}" with a plain value, found {"; ".join(found)}',
        "take the file as it was published or written, or edit it by hand",
    )
