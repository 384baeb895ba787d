"""Takes flash_attn out of a DeepSeek checkpoint's modeling_deepseek.py. Pure.

Ascend has no flash_attn. transformers reads the file's text before it loads it and wants every
package installed that a line imports, in whatever branch it stands (4.48.2 leaves this very block
out, older versions do not); so the lines must be comments. It is edited by what Python's parser
finds, not by line number, and checked by parsing the result.

The install guide comments is_flash_attn_2_available out as well. Where the file uses that name in
other places, loading or running it would end in a NameError: there a function of that name that
says False is put in. flash_attn_func and the others stay undefined, as they are in the original
without flash_attn: only the attention classes for flash_attn use them, which are not chosen then.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass
from typing import Iterator, Optional, Sequence

NAME = "is_flash_attn_2_available"
_ALONE = re.compile(r"\r(?!\n)")
_CLASS = re.compile(r"Deepseek\w*ForCausalLM")
_STAND_IN = (
    f"def {NAME}():",
    "    return False  # Ascend has no flash_attn; this file asks for it in other places too",
)


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


def edit(text: str) -> Edited:
    """The file's text without flash_attn. Raises Unexpected where it is not the expected file."""
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    source = text[len(mark) :]
    _check_lines(source)
    tree = _parse(source)
    _check_identity(tree)
    imports = [node for node in tree.body if _names(node)]
    blocks = [node for node in tree.body if _is_block(node)]
    _check_rest(tree, imports, blocks)
    inside = {id(node) for block in blocks for node in ast.walk(block)}
    lines = source.split("\n")
    done: list[str] = []
    for block in blocks:
        _comment(lines, block)
        done.append(f"the block 'if {NAME}():' is commented out")
    for node in imports:
        _disable(lines, node)
        done.append(f"the import of {NAME} is taken out")
    place = _place(tree, imports) if _is_missed(tree, inside) else None
    if place is not None:
        end = "\r" if lines[_last(place)].endswith("\r") else ""
        lines[_last(place) + 1 : _last(place) + 1] = [line + end for line in _STAND_IN]
        done.append(f"{NAME} says False: it is used in other places")
    edited = "\n".join(lines)
    wanted = _expected(tree, imports, blocks, place)
    if _shape(_parse(edited)) != _shape(wanted):
        at = [*imports, *blocks][0].lineno
        raise Unexpected(f"expected an import of {NAME} on lines of its own (line {at})")
    return Edited(mark + edited, tuple(done))


def _check_lines(text: str) -> None:
    """A carriage return alone is a line's end for Python's parser; here lines are split at LF."""
    alone = _ALONE.search(text)
    if alone:
        line = 1 + len(re.findall(r"\r\n?|\n", text[: alone.start()]))
        raise Unexpected(
            f"expected lines that end with LF or CRLF, found a CR alone (line {line})",
            "take the file as it was published: download it again",
        )


def _parse(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise Unexpected(
            f"expected a Python file, found what Python cannot read: {error}"
        ) from None


def _check_identity(tree: ast.Module) -> None:
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if not any(_CLASS.fullmatch(name) for name in classes):
        found = ", ".join(classes[:5]) or "no class"
        raise Unexpected(f"expected a class Deepseek…ForCausalLM, found {found}")


def _names(node: ast.stmt) -> bool:
    """Whether a statement imports the name from transformers."""
    if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("transformers"):
        return False
    return any(alias.name == NAME for alias in node.names)


def _is_flash(node: ast.AST) -> bool:
    """Whether a node imports flash_attn or a part of it."""
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom) and not node.level:
        names = [node.module or ""]
    return any(name.split(".")[0] == "flash_attn" for name in names)


def _is_block(node: ast.stmt) -> bool:
    """Whether it is "if is_flash_attn_2_available():" with nothing but flash_attn imports in it."""
    if not isinstance(node, ast.If) or node.orelse or not all(_is_flash(s) for s in node.body):
        return False
    test = node.test
    return isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == NAME


def _check_rest(tree: ast.Module, imports: Sequence[ast.stmt], blocks: Sequence[ast.stmt]) -> None:
    """What cannot be edited is said before anything is."""
    for node in imports:
        assert isinstance(node, ast.ImportFrom)
        alias = next(alias for alias in node.names if alias.name == NAME)
        if alias.asname:
            raise Unexpected(
                f"expected {NAME} under its own name, found it as {alias.asname}"
                f" (line {node.lineno})"
            )
    inside = {id(node) for block in blocks for node in ast.walk(block)}
    for part in ast.walk(tree):
        if _is_flash(part) and id(part) not in inside:
            raise Unexpected(
                f"expected imports of flash_attn only in a block 'if {NAME}():' of its own,"
                f" found one in line {getattr(part, 'lineno', '?')}"
            )


def _is_missed(tree: ast.Module, inside: set[int]) -> bool:
    """Whether the file uses the name, outside of the blocks, and has no other source of it."""
    used = False
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == NAME:
            return False
        if isinstance(node, ast.Name) and node.id == NAME and id(node) not in inside:
            if isinstance(node.ctx, ast.Store):
                return False
            used = True
    return used


def _place(tree: ast.Module, imports: Sequence[ast.stmt]) -> ast.stmt:
    """The import behind which a function of the name belongs."""
    if imports:
        return imports[-1]
    found = [
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("transformers")
    ]
    if not found:
        raise Unexpected("expected an import from transformers, found none")
    return found[-1]


def _last(node: ast.stmt) -> int:
    """Index of a statement's last line."""
    assert node.end_lineno is not None
    return node.end_lineno - 1


def _comment(lines: list[str], node: ast.stmt) -> None:
    """Make comments of all lines of a statement that stands at the left margin."""
    for index in range(node.lineno - 1, _last(node) + 1):
        if lines[index].strip():
            lines[index] = f"# {lines[index]}"


def _disable(lines: list[str], node: ast.stmt) -> None:
    """Take the name out of an import: as a comment where it stands alone on its line."""
    assert isinstance(node, ast.ImportFrom)
    if len(node.names) == 1:
        _comment(lines, node)
        return
    token, before, after = _found(lines, node)
    row = node.lineno - 2 + token.start[0]
    line = lines[row]
    rest = line[token.end[1] :].strip().lstrip(",").lstrip()
    alone = not line[: token.start[1]].strip() and (not rest or rest.startswith("#"))
    if alone:
        lines[row] = f"{line[: token.start[1]]}# {line[token.start[1] :]}"
    elif after is not None:  # NAME, next
        end = after.end[1] if after.end[0] == token.end[0] else token.end[1]
        kept, follows = line[: token.start[1]], line[end:].lstrip(" ")
        lines[row] = (kept if follows.strip() else kept.rstrip(" ")) + follows
    elif before is not None and before.start[0] == token.start[0]:  # last, NAME
        lines[row] = line[: before.start[1]] + line[token.end[1] :]
    else:
        raise Unexpected(f"expected {NAME} beside its comma, found it apart (line {row + 1})")


_Token = tokenize.TokenInfo


def _found(lines: list[str], node: ast.stmt) -> tuple[_Token, Optional[_Token], Optional[_Token]]:
    """The name's token in a statement, and the commas before and behind it."""
    part = "\n".join(lines[node.lineno - 1 : _last(node) + 1])
    tokens = [token for token in _tokens(part) if token.type not in _BLANK]
    index = next(i for i, token in enumerate(tokens) if token.string == NAME)
    before, after = tokens[index - 1], tokens[index + 1]
    return (
        tokens[index],
        before if before.string == "," else None,
        after if after.string == "," else None,
    )


_BLANK = (tokenize.NL, tokenize.COMMENT, tokenize.NEWLINE)


def _tokens(text: str) -> Iterator[_Token]:
    return tokenize.generate_tokens(io.StringIO(text + "\n").readline)


def _expected(
    tree: ast.Module,
    imports: Sequence[ast.stmt],
    blocks: Sequence[ast.stmt],
    place: Optional[ast.stmt],
) -> ast.Module:
    """What the edited file must parse to: the same, less the name and the blocks."""
    body: list[ast.stmt] = []
    for node in tree.body:
        if node in imports:
            assert isinstance(node, ast.ImportFrom)
            node.names = [alias for alias in node.names if alias.name != NAME]
        if node not in blocks and getattr(node, "names", [True]):
            body.append(node)
        if node is place:
            body.append(_stand_in())
    return ast.Module(body=body, type_ignores=[])


def _stand_in() -> ast.stmt:
    return ast.parse("\n".join(_STAND_IN)).body[0]


def _shape(tree: ast.AST) -> str:
    """A tree as text, without places."""
    return ast.dump(tree)
