"""Settings besides the hosts find their place in ours."""

from __future__ import annotations

from typing import Any

import pytest
from omnikit.errors import InputError
from omnikit.foreign_layout import Layout
from omnikit.foreign_settings import SERVICES, VARIABLES, put
from omnikit.layers import defaults
from omnikit.located import Node, Origin

HERE = Origin("f.yml", 7)
LENGTHS = ["prefill.max_model_len", "decode.max_model_len"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_a_setting_that_we_have(name: str) -> None:
    made = Layout("f.yml", 0)
    put(made, name, Node("x", HERE), name)
    [(path, node)] = made.settings.items()
    assert defaults().find(path) is not None
    assert (node.value, str(node.origin)) == ("x", "f.yml:7")


@pytest.mark.parametrize("name", LENGTHS)
def test_lengths_are_numbers_of_their_role(name: str) -> None:
    made = Layout("f.yml", 0)
    put(made, name, Node("32000", HERE), name)
    role = name.partition(".")[0]
    [(path, node)] = made.settings.items()
    assert path == ("roles", role, "server", "args", "max-model-len")
    assert node.value == 32000
    with pytest.raises(InputError, match=r"f.yml:7: n: found 'long'"):
        put(made, name, Node("long", HERE), "n")


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_value_says_nothing(value: Any) -> None:
    made = Layout("f.yml", 0)
    put(made, "http_proxy", Node(value, HERE), "n")
    assert made.settings == {}


PREFIXES = {"prefix.prefill", "prefix.decode", "prefix.proxy"}


def test_the_playbooks_names_mean_the_same_settings() -> None:
    assert set(VARIABLES.values()) <= {*SERVICES, *LENGTHS, *PREFIXES, "decode.tensor_parallel"}
