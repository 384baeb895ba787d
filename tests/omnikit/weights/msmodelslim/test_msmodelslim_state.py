"""How far a conversion has come is kept, whole, and belongs to its inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from omnikit.weights.msmodelslim.run import State


def test_steps_are_kept_and_a_step_done_anew_undoes_those_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "side" / "state.json"
    state = State.load(path)
    assert (state.steps, state.partial, path.exists()) == ({}, False, False)
    state.begin({"flags": "a"})
    assert state.changed == []
    for step in ("checked", "prepared", "converted"):
        state.mark(step)
    state.partial = True
    state.save()
    again = State.load(path)
    assert list(again.steps) == ["checked", "prepared", "converted"] and again.partial
    assert again.differences({"flags": "a"}) == []
    assert again.differences({"flags": "b", "env": "c"}) == ["flags", "env"]
    again.mark("checked")
    assert list(State.load(path).steps) == ["checked"]
    again.begin({"flags": "b"})
    assert again.changed == ["flags"] and not again.done("checked")


@pytest.mark.parametrize("text", ["{", "[]", '{"steps": {}}', ""])
def test_one_that_cannot_be_read_is_an_error_not_an_absence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(InputError, match="cannot be read"):
        State.load(path)
