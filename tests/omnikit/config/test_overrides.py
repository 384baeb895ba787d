"""Settings from --set options and OMNIKIT_ variables."""

from __future__ import annotations

from typing import Any

import pytest

from hostkit.base.errors import InputError
from omnikit.config import config, layers

KNOWN = layers.defaults()


@pytest.mark.parametrize(
    ("texts", "merged"),
    [
        (["a.b=1"], {"a": {"b": 1}}),
        (["a.b=1", "a.c=x", "a.b=2"], {"a": {"b": 2, "c": "x"}}),
        (["a=[1, 2]"], {"a": [1, 2]}),
        (["a.b=x=y"], {"a": {"b": "x=y"}}),
        (['hosts."n1.example".port=22'], {"hosts": {"n1.example": {"port": 22}}}),
        (["a= x "], {"a": " x "}),
        (["a="], {"a": None}),
    ],
)
def test_options_become_a_layer(texts: list[str], merged: Any) -> None:
    assert config.option_layer(texts).plain() == merged


@pytest.mark.parametrize(
    "text", ["", "x", "=1", "a..b=1", ".a=1", "a.=1", 'a"b=1', '"a"b=1', '""=1']
)
def test_a_malformed_option_is_shown_beside_what_is_expected(text: str) -> None:
    with pytest.raises(InputError) as caught:
        config.option_layer([text])
    assert caught.value.where == "--set"
    assert repr(text) in caught.value.what
    assert "expected section.key=value" in caught.value.what
    assert "--set server.args.max-model-len=8192" in str(caught.value.todo)


def test_a_malformed_option_with_a_password_is_not_shown() -> None:
    with pytest.raises(InputError) as caught:
        config.option_layer(["hosts.p0.password hunter2"])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("OMNIKIT_RUNTIME", ("runtime",)),
        ("OMNIKIT_PORTS__PROXY", ("ports", "proxy")),
        ("OMNIKIT_SERVER__ENV__OMP_NUM_THREADS", ("server", "env", "OMP_NUM_THREADS")),
        ("OMNIKIT_SERVER__ARGS__MAX_MODEL_LEN", ("server", "args", "max_model_len")),
    ],
)
def test_a_variable_names_a_setting(name: str, path: tuple[str, ...]) -> None:
    made = config.variable_layer({name: "5", "HOME": "/"}, KNOWN)
    node = made.find(path)
    assert node is not None and node.value == 5
    assert str(node.origin) == name


def test_a_variable_takes_the_spelling_that_the_files_have() -> None:
    known = layers.merge(KNOWN, config.option_layer(["hosts.Rack1.address=10.0.0.1"]))
    made = config.variable_layer({"OMNIKIT_HOSTS__RACK1__PORT": "22"}, known)
    assert made.plain() == {"hosts": {"Rack1": {"port": 22}}}


def test_variables_of_ours_that_are_no_settings_are_left_out() -> None:
    environ = dict.fromkeys(config.NOT_SETTINGS, "x")
    assert config.variable_layer(environ, KNOWN).plain() == {}


def test_a_misspelt_variable_is_named_with_the_right_one() -> None:
    with pytest.raises(InputError, match="is it OMNIKIT_ENVIRONMENT") as caught:
        config.variable_layer({"OMNIKIT_ENVIROMENT": "2p1d"}, KNOWN)
    assert caught.value.where == "OMNIKIT_ENVIROMENT"
