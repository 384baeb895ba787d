"""What is taken out of modeling_deepseek.py as published; other files are refused, and why."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_case import BLOCK, BY_HAND, MODELING

from omnikit.weights.msmodelslim.edits import NAME, Unexpected
from omnikit.weights.msmodelslim.edits import modeling as edit

UTILS = MODELING[MODELING.index("from transformers.utils import (") : MODELING.index("from transf"
    "ormers.utils.import_utils")]  # fmt: skip
# What transformers 4.48.2 (dynamic_module_utils.get_imports) takes for a package that is needed.
WANTED_IMPORT = re.compile(r"^\s*(?:import|from)\s+flash_attn\b", re.MULTILINE)


def with_import(text: str) -> str:
    return MODELING.replace(UTILS, text)


VARIANTS = {
    "as published": MODELING,
    "CRLF": MODELING.replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + MODELING,
    "no line break at the end": MODELING.rstrip("\n"),
    "last, no comma": with_import(
        f"from transformers.utils import (\n    logging,\n    {NAME}\n)\n"
    ),
    "with a comment": with_import(
        f"from transformers.utils import (\n    {NAME},  # 可用吗, a\n    logging,\n)\n"
    ),
    "another order": with_import(
        f"from transformers.utils import (\n    logging,\n    a,\n    {NAME},\n)\n"
    ),
    "import by hand, block not": MODELING.replace(f"    {NAME}", f"    # {NAME}"),
    "block by hand, import not": MODELING.replace(BLOCK, f"'''\n{BLOCK}\n'''"),
}


@pytest.mark.parametrize("text", VARIANTS.values(), ids=VARIANTS.keys())
def test_neither_the_name_nor_flash_attn_is_left_and_all_else_is(text: str) -> None:
    edited = edit(text)
    assert edited.done
    tree = ast.parse(edited.text.lstrip("\ufeff"))
    names = {n.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
             for n in node.names}  # fmt: skip
    assert NAME not in names
    assert not any(isinstance(node, ast.Name) and node.id == NAME for node in ast.walk(tree))
    if "'''" not in text:  # the guide's way to disable the block
        assert not WANTED_IMPORT.search(edited.text)
    before = ast.parse(text.lstrip("\ufeff"))
    kept = {n.name for node in ast.walk(before) if isinstance(node, ast.ImportFrom)
            for n in node.names if not (node.module or "").startswith("flash")}  # fmt: skip
    assert names == kept - {NAME}
    assert not re.search(r"(?m) \r?$", edited.text)
    assert edited.text.count("\r\n") == text.count("\r\n")
    assert edited.text.startswith("\ufeff") == text.startswith("\ufeff")


@pytest.mark.parametrize("text", [*VARIANTS.values(), BY_HAND], ids=[*VARIANTS, "by hand"])
def test_a_second_time_changes_nothing(text: str) -> None:
    once = edit(text).text
    again = edit(once)
    assert (again.text, again.done) == (once, ())


def test_the_published_file_is_edited_as_the_guide_says() -> None:
    edited = edit(MODELING)
    changed = [
        (old, new) for old, new in zip(MODELING.split("\n"), edited.text.split("\n")) if old != new
    ]
    assert changed == [
        (f"    {NAME},", f"    # {NAME},"),
        *((line, f"# {line}") for line in BLOCK.split("\n")),
    ]
    assert edit(BY_HAND).done == ()


def test_the_edited_file_can_be_loaded_without_flash_attn(tmp_path: Path) -> None:
    """And only what needs flash_attn fails, when it runs, as it does in the original."""
    text = edit(MODELING).text
    assert loaded(tmp_path, text, "DeepseekV3FlashAttention2()._top_left") == "True"
    with pytest.raises(AssertionError, match="NameError: name 'flash_attn_func'"):
        loaded(tmp_path, text, "DeepseekV3FlashAttention2().forward(1)")


def loaded(tmp_path: Path, text: str, expression: str) -> str:
    """What an expression is in the file, loaded beside the few names it takes from transformers."""
    package = tmp_path / "model"
    stubs = {
        "transformers/__init__.py": "",
        "transformers/activations.py": "ACT2FN = 0",
        "transformers/pytorch_utils.py": "ALL_LAYERNORM_LAYERS = 0",
        "transformers/utils/__init__.py": "import logging; logging.get_logger = logging.getLogger\n"
        "add_start_docstrings = add_start_docstrings_to_model_forward = 0\n"
        "replace_return_docstrings = 0\n"
        "is_flash_attn_greater_or_equal_2_10 = lambda: False\n",
        "transformers/utils/import_utils.py": "is_torch_fx_available = lambda: False",
        "model/__init__.py": "",
        "model/configuration_deepseek.py": "DeepseekV3Config = 0",
    }
    for name, stub in stubs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(stub)
    (package / "modeling_deepseek.py").write_bytes(text.encode())
    code = f"from model.modeling_deepseek import *; print({expression})"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# What an editor would have to guess at.
OTHERS = {
    "one line": with_import(f"from transformers.utils import logging, {NAME}, a  # noqa\n"),
    "one line, last": with_import(f"from transformers.utils import logging, {NAME}\n"),
    "one line, first": with_import(f"from transformers.utils import {NAME}, logging\n"),
    "one line, in brackets": with_import(f"from transformers.utils import (logging, {NAME})\n"),
    "alone": with_import(f"from transformers.utils import {NAME}\nlogging = 1\n"),
    "alone, in brackets": with_import(
        f"from transformers.utils import (\n    {NAME},  # x\n)\nlogging = 1\n"
    ),
    "two to a line": with_import(
        f"from transformers.utils import (\n    a, {NAME},\n    logging,\n)\n"
    ),
    "last on its line": with_import(
        f"from transformers.utils import (logging, {NAME},\n    a, b)\n"
    ),
    "backslash": with_import(f"from transformers.utils import logging, \\\n    {NAME}, a\n"),
    "from the top": with_import(
        f"from transformers.utils import logging\nfrom transformers import {NAME}\n"
    ),
    "the block in one line": MODELING.replace(BLOCK, f"if {NAME}(): import flash_attn"),
    "used in another place": MODELING + f"\n    def fast(self):\n        return {NAME}()\n",
    "CR CR LF": MODELING.replace("\n", "\r\r\n"),
    "CR alone": MODELING.replace("\n", "\r"),
    "another name": MODELING.replace(f"    {NAME},", f"    {NAME} as fa2,"),
    "an else": MODELING.replace(BLOCK, f"{BLOCK}\nelse:\n    flash_attn_func = None"),
    "tried": MODELING.replace(BLOCK, "try:\n    import flash_attn\nexcept ImportError:\n    pass"),
    "in a function": MODELING + "\n\ndef f():\n    import flash_attn.ops\n",
    "two statements": with_import(f"from transformers.utils import {NAME}; logging = 1\n"),
}


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS.keys())
def test_other_lines_are_refused_with_those_expected_and_those_found(text: str) -> None:
    with pytest.raises(Unexpected) as raised:
        edit(text)
    expected, _, found = str(raised.value).partition("\n\nfound\n\n")
    assert f"    {NAME},\n{BLOCK}" in expected
    lines = [line.rstrip() for line in text.split("\n")]
    for one in found.split("\n"):
        at, _, line = one.partition(": ")
        if at.isdigit():
            assert lines[int(at) - 1] == line and "flash_attn" in line
    assert "by hand" in raised.value.todo


UNEXPECTED = {
    "another model": (MODELING.replace("Deepseek", "Llama"), "found LlamaV3FlashAttention2, Llama"),
    "no Python": ("{{{", "found what Python cannot read"),
    "nothing": ("", "found no class"),
}


@pytest.mark.parametrize("text, said", UNEXPECTED.values(), ids=UNEXPECTED.keys())
def test_what_is_not_as_expected_is_refused(text: str, said: str) -> None:
    with pytest.raises(Unexpected) as raised:
        edit(text)
    assert said in str(raised.value) and "expected" in str(raised.value)
