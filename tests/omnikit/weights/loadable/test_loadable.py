"""How an engine's answers are compared, and what is said when there are none. The real engine:
tests/test_converted_weights_load.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import ActionError, InputError
from omnikit.weights.loadable import check as loadable


def engine(folder: Path, body: str) -> str:
    """Stands for a Python with vLLM that dies at once: the real one takes 20 s to."""
    file = folder / "python"
    file.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 0\n{body}\n')
    file.chmod(0o755)
    return str(file)


def test_differences_are_in_standard_deviations() -> None:
    found = loadable.compared([[0.0, 2.0]], [[0.5, 1.5]])
    assert found == {"difference": 0.5, "error": None}
    assert loadable.compared([[0.0]], "ValueError: no")["error"] == "ValueError: no"
    assert loadable.compared("ValueError: no", [[0.0]])["difference"] is None


def test_what_is_said() -> None:
    one = {"difference": 0.0612, "error": None}
    none = {"difference": None, "error": "NotImplementedError: No Int8 MoE backend"}
    told = {"engine": "vLLM 0.32.0", "dense": one, "experts": none, "read_back": one}
    assert loadable.as_lines(told) == [
        "small model, dense layers, by vLLM 0.32.0: 0.061 from the source's (below 0.15)",
        "small model, experts, by vLLM 0.32.0: NotImplementedError: No Int8 MoE backend",
        "small model, experts, read back, by compressed-tensors: 0.061 from the source's"
        " (below 0.15)",
    ]


def test_an_engine_that_ends_leaves_its_last_words(tmp_path: Path) -> None:
    python = engine(tmp_path, "echo Illegal instruction >&2; exit 4")
    with pytest.raises(ActionError, match="Illegal instruction"):
        loadable.logits(python, ["x"], tmp_path / "out.json")


def test_no_engine_is_wrong_input() -> None:
    with pytest.raises(InputError, match="cannot import vllm, nor torch") as caught:
        loadable.reader("/bin/false")
    assert "invoke install-engine" in str(caught.value)


def test_vllm_comes_first_then_transformers(tmp_path: Path) -> None:
    python = engine(tmp_path, "exit 1")
    assert loadable.reader(python) == loadable.Reader(python, loadable.VLLM)
    body = '#!/bin/sh\ncase "$2" in *transformers*) exit 0;; esac\nexit 1\n'
    (tmp_path / "python").write_text(body)
    assert loadable.reader(python).by == loadable.TRANSFORMERS
