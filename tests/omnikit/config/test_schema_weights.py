"""Settings of download and conversion: what is refused, with the setting's name."""

from __future__ import annotations

import pytest

from hostkit.base.errors import InputError
from omnikit.config import config


@pytest.mark.parametrize(
    "assignment",
    [
        "weights.msmodelslim.script=/absolute.py",
        "weights.msmodelslim.python=python3 -x",
        "weights.msmodelslim.free_ratio=-1",
        'weights.msmodelslim.flags=["a\\nb"]',
        "weights.msmodelslim.env={1x: y}",
        "weights.download.endpoint=hf-mirror.com",
        "weights.download.endpoint=https://me:word@host",
        "weights.download.workers=65",
        "weights.download.token=hf_secret",
        "weights.download.include=*.json",
    ],
)
def test_mistakes_are_named(assignment: str) -> None:
    with pytest.raises(InputError, match=assignment.partition("=")[0].replace(".", r"\.")):
        config.load("local", [], [assignment], environ={})


def test_the_defaults_are_the_install_guides() -> None:
    given = config.load("local", environ={}).settings.weights.msmodelslim
    assert given.flags[-1] == "--cloud_vllm" and given.transformers == "4.48.2"
