"""The merged settings as text: it reads back as what it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from settings_file import load_site, write

from omnikit.config import config, report
from omnikit.yaml.strict_yaml import parse

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(-1e9, 1e9).map(lambda x: round(x, 3))
    | st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
    | st.from_regex(r"[-+.0-9_:eEx~yn]{1,8}", fullmatch=True)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.from_regex(r"[a-z]{1,3}", fullmatch=True), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(values)
def test_yaml_reads_back_as_the_same_data_here_and_elsewhere(value: Any) -> None:
    text = report.as_yaml({"a": value})
    assert parse(text, "f").plain() == {"a": value}
    assert yaml.safe_load(text) == {"a": value}


def test_the_merged_settings_given_back_are_the_same_settings(tmp_path: Path) -> None:
    loaded = config.load("2p1d", environ={})
    found = report.leaves(loaded, changed=False)
    text = report.as_yaml(report.nested(found))
    again = config.load("2p1d", [str(write(tmp_path, text))], environ={})
    assert again.settings == loaded.settings


def test_origins_stand_aligned_behind_each_value(tmp_path: Path) -> None:
    loaded = load_site(tmp_path, 'server: {env: {A: "no", B: "x\\ny", C: 中}}\n')
    found = report.leaves(loaded, changed=True)
    lines = report.with_origins(found).splitlines()
    line = next(line for line in lines if line.startswith("server.env.A"))
    assert line.split("   ")[0] == 'server.env.A = "no"'
    assert line.endswith(f"   # {tmp_path}/site.yaml:1")
    assert any(line.startswith('server.env.B = "x\\ny" ') for line in lines)
    assert any(line.startswith("server.env.C = 中 ") for line in lines)
    columns = {line.index("   # ") for line in lines if len(line.split("   # ")[0]) <= 72}
    assert len({max(column, 60) for column in columns}) == 1


def test_changed_leaves_out_what_equals_the_defaults(tmp_path: Path) -> None:
    loaded = load_site(tmp_path, "ports: {proxy: 7000, zmq: 5569}\n")
    nested = report.nested(report.leaves(loaded, changed=True))
    assert nested["ports"] == {"zmq": 5569}


def test_json_is_nested_or_by_name_with_origins(tmp_path: Path) -> None:
    loaded = load_site(tmp_path, "hosts: {n1.example: {address: 10.0.0.1}}\n")
    found = report.leaves(loaded, changed=False)
    assert json.loads(report.as_json(found, origins=False)) == loaded.tree.plain()
    located = json.loads(report.as_json(found, origins=True))
    assert located['hosts."n1.example".address'] == {
        "value": "10.0.0.1",
        "origin": f"{tmp_path}/site.yaml:1",
    }
