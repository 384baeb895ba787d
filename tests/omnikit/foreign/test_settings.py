"""Settings besides the hosts find their place in ours."""

from __future__ import annotations

from typing import Any

import pytest

from hostkit.base.errors import InputError
from omnikit.config.layers import defaults
from omnikit.foreign.inventory.jinja import Variables
from omnikit.foreign.layout import Layout
from omnikit.foreign.settings import SERVICES, VARIABLES, put, put_variables
from omnikit.yaml.node import Node, Origin

HERE = Origin("f.yml", 7)
LENGTHS = ["prefill.max_model_len", "decode.max_model_len"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_a_setting_that_we_have(name: str) -> None:
    made = Layout("f.yml", 0)
    put(made, name, Node("x", HERE), name)
    expected = "x/omniinfer" if name in ("code_path", "local_code_path") else "x"
    for path, node in made.settings.items():
        assert defaults().find(path) is not None
        assert (node.value, str(node.origin)) == (expected, "f.yml:7")


def test_the_source_is_below_the_folders_that_users_name() -> None:
    here, there = ("paths", "local_code_dir"), ("paths", "code_dir")
    for names in (["code_path", "local_code_path"], ["local_code_path", "code_path"]):
        made = Layout("f.yml", 0)
        for name in names:
            put(made, name, Node(f"/src/{name}/", HERE), name)
        found = {path: node.value for path, node in made.settings.items()}
        assert found == {
            here: "/src/local_code_path/omniinfer",
            there: "/src/code_path/omniinfer",
        }
    made = Layout("f.yml", 0)
    put(made, "code_path", Node("/workspace", HERE), "CODE_PATH")
    assert {node.value for node in made.settings.values()} == {"/workspace/omniinfer"}
    assert set(made.settings) == {here, there}  # the same path on both, as upstream's tool has it


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


@pytest.mark.parametrize("name", VARIABLES)
def test_the_playbooks_names_mean_settings_that_we_have(name: str) -> None:
    made = Layout("f.yml", 0)
    put(made, VARIABLES[name], Node("4", HERE), name)
    for path in made.settings:
        there = path[:-1] if "env" in path or "args" in path else path
        assert defaults().find(there) is not None or there[0] == "roles"


def variables(**values: object) -> Variables:
    return Variables("p0", {key: Node(value, HERE) for key, value in values.items()}, {})


def test_one_name_for_two_settings_of_the_same_keeps_the_first_and_says_so() -> None:
    made = Layout("f.yml", 0)
    put_variables(made, {"p0": variables(DOCKER_IMAGE_ID="a:1", docker_image="b:1")})
    assert made.settings["container", "image"].value == "a:1"
    assert made.notes == ["f.yml:7: docker_image is not used: f.yml:7 says a:1 for the same"]


def test_what_hosts_say_differently_is_refused() -> None:
    hosts = {"p0": variables(LOG_PATH="/a"), "d0": variables(LOG_PATH="/b"), "d1": variables()}
    with pytest.raises(InputError, match=r"LOG_PATH is '/b' for d0 and '/a' for p0 \(f.yml:7\)"):
        put_variables(Layout("f.yml", 0), hosts)


def test_only_what_the_release_has_is_served() -> None:
    for name, good, other in (
        ("KV_CONNECTOR", "AscendHcclConnectorV1", "LMCacheConnectorV1"),
        ("USE_OMNI_PROXY", "0", "1"),
    ):
        put_variables(Layout("f.yml", 0), {"p0": variables(**{name: good})})
        with pytest.raises(InputError, match=f"f.yml:7: {name}: found '{other}', expected"):
            put_variables(Layout("f.yml", 0), {"p0": variables(**{name: other})})
