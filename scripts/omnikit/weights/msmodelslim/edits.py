"""What the install guide changes in a DeepSeek checkpoint before and after msmodelslim.

The known lines of two files as they are published and written; others are refused, with what was
expected and what was found.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping

from hostkit.base.errors import InputError
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
        with contextlib.suppress(OSError, ValueError, AttributeError):
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
    edited, blocks = text, 0
    if any(_is_block(node) for node in tree.body):  # else the lines are in a string, by hand
        edited, blocks = _LINES.subn(lambda found: re.sub("(?m)^", "# ", found[0]), text)
    edited, imports = _IMPORT.subn(lambda found: f"    # {found[0][4:]}", edited)
    try:
        after = _parse(edited)
    except Unexpected:
        raise _other(text) from None
    if _wants_flash(after) or _rest(after) != _rest(tree):
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


def _rest(tree: ast.Module) -> list[str]:
    """All other statements, as text: what no edit may change."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            node.names = [alias for alias in node.names if alias.name != NAME]
        if not _is_block(node):
            found.append(ast.dump(node))
    return found


def _is_block(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == f"{NAME}()"


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
        values = json.loads(text)
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
