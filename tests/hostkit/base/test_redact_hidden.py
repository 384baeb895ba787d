"""A secret in memory shows itself nowhere."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from hostkit.base.redact import Hidden
from omnikit.config.report import as_yaml

SECRET = Hidden("hunter2")


def test_only_reveal_gives_the_secret() -> None:
    shown = [str(SECRET), repr(SECRET), f"{SECRET}", "".join([SECRET]), json.dumps([SECRET])]
    shown += [as_yaml({"password": SECRET}), str({"x": SECRET}), SECRET + "", SECRET.upper()]
    assert not any("hunter2" in text.lower() for text in shown)
    assert "[redacted]" in shown[4] and "[redacted]" in shown[5]
    assert SECRET.reveal() == "hunter2"


def test_secrets_are_compared_by_what_they_hide() -> None:
    assert Hidden("hunter2") == SECRET
    assert Hidden("hunter3") != SECRET
    assert SECRET != "[redacted]"
    assert len({SECRET, Hidden("hunter2"), Hidden("hunter3")}) == 2


def test_a_copy_hides_too_and_nothing_is_serialised() -> None:
    assert copy.deepcopy({"a": SECRET})["a"].reveal() == "hunter2"
    with pytest.raises(TypeError, match="not written"):
        pickle.dumps(SECRET)
