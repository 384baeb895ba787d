"""Loading: which layer wins, where a value came from, and what hostile text becomes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Iterator, Optional

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from outside import shipped
from settings_file import FLEET, load, load_site, write

from hostkit.base.errors import InputError
from omnikit.config import config, layers
from omnikit.config.report import as_yaml
from omnikit.config.schema import Secret, Settings
from omnikit.plan.types import Plan
from omnikit.topology.topology import make_plan

ENVIRONMENTS = shipped("environments")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_of_the_repository_loads_and_plans(name: str) -> None:
    loaded = config.load(name, environ={})
    assert loaded.environment == name
    assert make_plan(loaded).nodes


def test_layers_win_from_defaults_to_options(tmp_path: Path) -> None:
    key = ("ports", "proxy")
    sites = [write(tmp_path, f"ports: {{proxy: {n}}}", f"{n}.yaml") for n in (1003, 1004)]
    own = write(tmp_path, FLEET + "ports: {proxy: 1002}\n", "own.yaml")
    variables = {"OMNIKIT_PORTS__PROXY": "1005"}
    option = "ports.proxy=1006"

    def proxy(*, env: bool, files: int, variable: bool, set_: bool) -> tuple[int, str]:
        loaded = config.load(
            str(own) if env else "local",
            [str(path) for path in sites[:files]],
            [option] if set_ else [],
            variables if variable else {},
        )
        return loaded.settings.ports.proxy, str(loaded.origin(*key))

    defaults_line = layers.defaults().at(key).origin.line
    found = proxy(env=False, files=0, variable=False, set_=False)
    assert found == (7000, f"configs/defaults.yaml:{defaults_line}")
    assert proxy(env=True, files=0, variable=False, set_=False) == (1002, f"{own}:12")
    assert proxy(env=True, files=1, variable=False, set_=False) == (1003, f"{sites[0]}:1")
    assert proxy(env=True, files=2, variable=False, set_=False) == (1004, f"{sites[1]}:1")
    assert proxy(env=True, files=2, variable=True, set_=False) == (1005, "OMNIKIT_PORTS__PROXY")
    assert proxy(env=True, files=2, variable=True, set_=True) == (1006, "--set ports.proxy")


def test_engine_version_and_model_lie_between_defaults_and_environment(tmp_path: Path) -> None:
    loaded = load(tmp_path, FLEET + "model: {served_name: own}\n")
    assert str(loaded.origin("metrics", "kv_usage")).startswith("configs/engines/ascend.yaml")
    assert str(loaded.origin("model", "path")).startswith("configs/models/deepseek")
    assert loaded.settings.model.served_name == "own"


def test_the_local_files_of_a_site_come_before_those_given(tmp_path: Path, monkeypatch) -> None:
    local = write(tmp_path, "ports: {proxy: 1001, zmq: 1002}\n", "x.local.yaml")
    monkeypatch.setattr(layers, "local_files", lambda: [local])
    loaded = load_site(tmp_path, "ports: {proxy: 1003}\n")
    assert (loaded.settings.ports.proxy, loaded.settings.ports.zmq) == (1003, 1002)


def test_server_settings_rise_from_general_to_host(tmp_path: Path) -> None:
    text = FLEET.replace("{hosts: [p0]}", "{hosts: [p0], server: {args: {a: i, b: i}}}")
    text = text.replace("192.0.2.1}", "192.0.2.1, server: {args: {a: h}}}")
    text += """
server: {args: {a: g, b: g, c: g, d: g, e: g}}
roles:
  disaggregated: {server: {args: {a: d, b: d, c: d, d: d}}}
  prefill: {server: {args: {a: r, b: r, c: r}}}
"""
    loaded = load(tmp_path, text)
    args = loaded.server_for("prefill", 0, "p0")[0].args
    assert "".join(args[key] for key in "abcde") == "hirdg"
    args = loaded.server_for("decode", 0, "d1")[0].args
    assert "".join(args[key] for key in "abcde") == "ddddg"


def test_a_higher_layer_beats_a_more_specific_one(tmp_path: Path) -> None:
    text = FLEET + "roles: {prefill: {server: {args: {max-model-len: 1}}}}\n"
    loaded = load(tmp_path, text, ["server.args.max_model_len=2"])
    server, tree = loaded.server_for("prefill", 0, "p0")
    assert server.args["max-model-len"] == 2
    assert str(tree.at(("args", "max-model-len")).origin) == "--set server.args.max_model_len"


def test_what_differs_from_the_defaults_is_known(tmp_path: Path) -> None:
    loaded = load_site(tmp_path, "ports: {proxy: 7000, zmq: 5569}\n")
    changed = {".".join(path): str(node.origin) for path, node in loaded.changed()}
    assert changed["ports.zmq"] == f"{tmp_path}/site.yaml:1"
    assert "ports.proxy" not in changed
    assert "hosts.local.address" in changed


@pytest.mark.parametrize(
    ("environment", "variables", "where", "what"),
    [
        ("locl", {}, "--environment", "is it 'local'?"),
        (None, {"OMNIKIT_ENVIRONMENT": "locl"}, "OMNIKIT_ENVIRONMENT", "is it 'local'?"),
        ("/no/such.yaml", {}, "/no/such.yaml", "No such file"),
        (None, {"OMNIKIT_PORT__PROXY": "1"}, "OMNIKIT_PORT__PROXY", "is it OMNIKIT_PORTS__PROXY?"),
        (None, {"OMNIKIT_PORTS__PROXI": "1"}, "OMNIKIT_PORTS__PROXI", "OMNIKIT_PORTS__PROXY?"),
        (None, {"OMNIKIT_WORK_DIR": "1"}, "OMNIKIT_WORK_DIR", "is it OMNIKIT_PATHS__WORK_DIR?"),
        (None, {"OMNIKIT_PORTS__PROXY": "x"}, "OMNIKIT_PORTS__PROXY", "expected a whole number"),
        (None, {"OMNIKIT_ZZZ": ""}, "OMNIKIT_ZZZ", "unknown setting zzz"),
    ],
)
def test_a_bad_choice_names_the_option_or_variable(
    environment: Optional[str], variables: dict[str, str], where: str, what: str
) -> None:
    with pytest.raises(InputError) as caught:
        config.load(environment, environ=variables)
    assert caught.value.where == where
    assert what in caught.value.what


@pytest.mark.parametrize("name", ["a b.yaml", "x\nrm -rf.yaml", "$(id).yaml", "-x.yaml", ".yaml"])
def test_a_file_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be the name of an environment"):
        config.load(str(write(tmp_path, FLEET, name)), environ={})


def test_the_name_of_an_environment_is_that_of_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, FLEET, "rack-7.local.yaml")
    assert config.load(str(path), environ={}).environment == "rack-7"


def test_a_secret_is_read_from_where_it_refers_to(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SSH_PASS", "hunter2")
    (tmp_path / "pass").write_text("hunter3\n")
    assert config.read_secret(Secret(variable="SSH_PASS"), "x") == "hunter2"
    assert config.read_secret(Secret(file=str(tmp_path / "pass")), "x") == "hunter3"
    for secret in (Secret(variable="NOT_SET"), Secret(file="/no/such"), Secret(file="/")):
        with pytest.raises(InputError) as caught:
            config.read_secret(secret, "site.yaml:4")
        assert caught.value.where == "site.yaml:4"


# --- hostile text in every string field ----------------------------------------------------


@pytest.fixture(scope="module")
def read_once() -> Iterator[None]:
    """Hundreds of examples read the same files of the repository: keep them."""
    read = lru_cache(maxsize=None)(layers.read_file)
    own = layers.read_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            layers,
            "read_file",
            lambda path, layer, **_: (read if path.is_relative_to(layers.PROJECT) else own)(
                path, layer
            ),
        )
        yield


PIECES = [
    *(
        "'",
        '"',
        "`",
        "$(id)",
        "${HOME}",
        "; rm -rf /",
        "| sh",
        "&& x",
        "\n",
        "\r",
        "\t",
        "\\",
        "\0",
    ),
    *(
        "--help",
        "-",
        "{{ 7*7 }}",
        "{% raw %}",
        "{# c #}",
        "${plan.kv_rank}",
        "${plan.x}",
        "${plan.",
    ),
    *(
        "${host.interface}",
        "$",
        "%s",
        "#",
        " ",
        "é",
        "中文",
        "\u202e",
        "\u2028",
        "\x1b[31m",
        "\x85",
    ),
    *("!", "*", "?", "~", "=", ",", ":", "<", ">", "null", "no", "012", "a", "/"),
]
hostile = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), min_size=1, max_size=4).map(
    "".join
)


def text_fields() -> Iterator[tuple[Any, ...]]:
    """The path of every field that takes text, with a host, an instance, a flag and a variable."""
    yield from (("server", "args", "f"), ("server", "env", "V"), ("server", "command", 0))
    yield from (("server", "args", "json", "k"), ("server", "args", "list", 0))
    yield from (("topology", "prefill", 0, "hosts", 0), ("topology", "proxy"))
    for role in ("prefill", "decode"):
        yield ("roles", role, "server", "env", "V")
        yield ("topology", role, 0, "server", "args", "f")
        yield ("topology", role, 0, "devices")
    for key in Settings.model_fields["hosts"].annotation.__args__[1].model_fields:
        yield ("hosts", "p0", key)
    yield from (("hosts", "p0", "password", "file"), ("hosts", "p0", "password", "variable"))
    for path, leaf in layers.defaults().leaves():
        if path[0] not in ("hosts", "topology", "server", "roles") and not isinstance(
            leaf.value, (int, float)
        ):
            yield path


FIELDS = list(text_fields())


def with_text(path: tuple[Any, ...], text: str) -> dict[str, Any]:
    """The fleet with one text put in."""
    data = yaml.safe_load(FLEET)
    here = data
    for i, step in enumerate(path[:-1]):
        if isinstance(here, list):
            here = here[step]
        else:
            here = here.setdefault(step, [] if path[i + 1] == 0 else {})
    if isinstance(here, list) and not here:
        here.append(text)
    else:
        here[path[-1]] = text
    return data


def value_at(loaded: config.Config, path: tuple[Any, ...]) -> Any:
    node = loaded.tree.find(path)
    return None if node is None else node.value


def flag_value(words: tuple[str, ...], flag: str) -> str:
    """The value of a flag, as a word of its own or behind =."""
    if flag in words:
        return words[words.index(flag) + 1]
    return next(word for word in words if word.startswith(f"{flag}=")).partition("=")[2]


def check_plan(plan: Plan, path: tuple[Any, ...], text: str) -> None:
    """Text that is handed to servers arrives as one word or one value, whole."""
    node = plan.nodes[0]
    words = node.argv(node.servers[0])
    variables = node.environment(node.servers[0])
    if path == ("server", "args", "f"):
        assert flag_value(words, "--f") == text
    elif path == ("server", "args", "list", 0):
        assert words[words.index("--list") + 1] == text
    elif path == ("server", "env", "V"):
        assert variables["V"] == text
    elif path == ("model", "served_name"):
        assert plan.served_name == text
        assert flag_value(words, "--served-model-name") == text
    elif path == ("model", "path"):
        assert plan.model_path == str(Path(text))


def test_the_fields_under_attack_are_really_those_of_the_schema() -> None:
    assert len(FIELDS) > 60
    assert {("model", "path"), ("proxy", "nginx"), ("hosts", "p0", "jump")} <= set(FIELDS)


@pytest.mark.slow
@pytest.mark.usefixtures("read_once")
@settings(max_examples=250, deadline=None)
@given(path=st.sampled_from(FIELDS), text=hostile)
def test_hostile_text_is_refused_or_arrives_unchanged(
    tmp_path_factory: Any, path: tuple[Any, ...], text: str
) -> None:
    if path[-1] in ("path", "work_dir", "log_dir", "venv"):
        text = f"/data/{text}"
    source = as_yaml(with_text(path, text))
    folder = tmp_path_factory.getbasetemp()
    try:
        loaded = load(folder, source)
    except InputError as error:
        assert error.where or error.errors  # type: ignore[attr-defined]
        return
    assert value_at(loaded, path) == text
    try:
        plan = make_plan(loaded)
    except InputError as error:
        assert error.where
        return
    if "${plan." not in text:
        check_plan(plan, path, text)


@pytest.mark.slow
@pytest.mark.usefixtures("read_once")
@settings(max_examples=100, deadline=None)
@given(text=hostile, path=st.sampled_from([("server", "env", "V"), ("model", "served_name")]))
def test_hostile_text_in_an_option_or_variable_is_the_same_data(
    text: str, path: tuple[str, ...]
) -> None:
    for assignments, environ in (
        ([f"{'.'.join(path)}={text}"], {}),
        ([], {f"OMNIKIT_{'__'.join(path).upper()}": text}),
    ):
        try:
            loaded = config.load("local", (), assignments, environ)
        except InputError:
            continue
        found = loaded.tree.at(path).value
        if isinstance(found, str) and text[:1] not in ("'", '"'):
            assert found == text
