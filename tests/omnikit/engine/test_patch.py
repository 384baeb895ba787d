"""The correction of the installed NIXL."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import ActionError
from omnikit.engine.install import FILE, calm_nixl

AS_SHIPPED = "a = 1\n        agent_config.pthrDelay = 0\n        agent_config.lthrDelay = 100000\n"


def installed(folder: Path, text: str) -> Path:
    path = folder / FILE
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_the_pause_is_set_once(tmp_path: Path) -> None:
    path = installed(tmp_path, AS_SHIPPED)
    assert calm_nixl(tmp_path) is True
    assert path.read_text() == AS_SHIPPED.replace("pthrDelay = 0", "pthrDelay = 1000")
    assert calm_nixl(tmp_path) is False


@pytest.mark.parametrize("text", ["", "something else\n", AS_SHIPPED + AS_SHIPPED])
def test_an_unexpected_file_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = installed(tmp_path, text)
    with pytest.raises(ActionError, match="expected exactly one line"):
        calm_nixl(tmp_path)
    assert path.read_text() == text
