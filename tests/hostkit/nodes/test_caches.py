"""What servers compile, kept by key: when a folder is used, and when it is refused, and said."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
from host_cases import STAND_IN, a_host, a_node, running

from hostkit.base.errors import ActionError
from hostkit.nodes import caches, start_stop

TESTS = Path(__file__).parents[2]


@pytest.fixture
def host(tmp_path: Path) -> dict[str, Any]:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"layers": 2}')
    program = tmp_path / "engine.py"
    shutil.copy(STAND_IN, program)
    node = a_node(tmp_path, "p0", "")
    node["cache"] = {
        "variables": ["VLLM_CACHE_ROOT"],
        "ranks": [0],
        "inputs": {
            "command": ["python3", str(program)],
            "args": {"max-model-len": 4096},
            "env": {"OMP_NUM_THREADS": "1"},
            "devices": {"kind": "none", "count": 1, "tensor_parallel": 1},
            "model": str(model),
        },
    }
    return a_host(tmp_path, node)


def looked(host: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = caches.look({"host": host})["nodes"]["p0"]
    return found


def filled(host: dict[str, Any]) -> Path:
    """The folder of p0 after servers have compiled, and real requests have passed."""
    with running(host):
        place = caches.used_by(host, "p0")
        assert place is not None
        (place / "VLLM_CACHE_ROOT" / "rank_0").mkdir()
        (place / "VLLM_CACHE_ROOT" / "rank_0" / "graph").write_bytes(b"compiled")
        (place / "VLLM_CACHE_ROOT" / "lock").touch()
        assert looked(host)["state"] == "none", "nothing proves it yet"
        assert caches.keep({"host": host, "kept": 1})["kept"] == [place.name]
    return place


@pytest.mark.parametrize(
    "change",
    [
        lambda host, inputs: inputs["args"].update({"max-model-len": 8192}),
        lambda host, inputs: inputs["env"].update({"OMP_NUM_THREADS": "2"}),
        lambda host, inputs: inputs["devices"].update({"count": 2}),
        lambda host, inputs: (Path(inputs["model"]) / "config.json").write_text("{}"),
        lambda host, inputs: Path(inputs["command"][1]).write_text("# another release"),
    ],
    ids=["flag", "variable", "devices", "model", "engine"],
)
def test_all_that_compiled_code_depends_on_makes_another_key(
    host: dict[str, Any], change: Callable[[Any, Any], Any]
) -> None:
    before = looked(host)["key"]
    assert looked(host)["key"] == before
    change(host, host["nodes"][0]["cache"]["inputs"])
    assert looked(host)["key"] != before


def test_a_driver_and_chips_are_of_the_key(
    host: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = {"hccn_tool": "", "hccn_conf": "", "ip": "", "timeout_s": 20, "interval_s": 0.1}
    host["ranktable"] = {**tools, "npu_smi": str(TESTS / "fake_npu" / "npu-smi")}
    host["nodes"][0]["cache"]["inputs"]["devices"]["kind"] = "npu"
    keys = set()
    for state in ("a3.healthy", "a3.serving", "910b"):
        monkeypatch.setenv("FAKE_NPU_SMI", state)
        caches._npus.cache_clear()  # a process of its own on a real host
        keys.add(looked(host)["key"])
    assert len(keys) == 2, "what runs on the chips changes nothing, another chip does"
    monkeypatch.setenv("FAKE_NPU_SMI", "dcmi-8005")
    caches._npus.cache_clear()
    assert looked(host)["state"] == "unknown" and "dcmi" in looked(host)["why"]


@pytest.mark.slow  # real processes, seconds together
def test_what_was_proved_is_used_again_and_what_servers_add_is_not_lost(
    host: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    place = filled(host)
    assert looked(host)["state"] == "whole" and looked(host)["bytes"] == len(b"compiled")
    (place / "VLLM_CACHE_ROOT" / "later").write_bytes(b"another shape")
    with running(host):
        assert caches.used_by(host, "p0") == place
    assert (place / "VLLM_CACHE_ROOT" / "later").read_bytes() == b"another shape"
    assert "put aside" not in capsys.readouterr().err


def _of_another_key(place: Path) -> None:
    told = json.loads((place / caches.KEY).read_text())
    told["inputs"]["args"] = {"max-model-len": 1}
    (place / caches.KEY).write_text(json.dumps(told))


@pytest.mark.slow  # real processes, seconds together
@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda place: (place / caches.KEY).unlink(), "it has no key.json: no deployment was"),
        (lambda place: os.truncate(place / caches.KEY, 40), "its key.json is damaged"),
        (_of_another_key, "its key.json is of something else: args differs"),
        (
            lambda place: os.truncate(place / "VLLM_CACHE_ROOT" / "rank_0" / "graph", 3),
            "VLLM_CACHE_ROOT/rank_0/graph is not there, or is shorter",
        ),
    ],
    ids=["unproved", "damaged", "stale", "cut"],
)
def test_a_folder_that_may_be_wrong_is_put_aside_and_said(
    host: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path], None],
    why: str,
) -> None:
    place = filled(host)
    harm(place)
    assert looked(host)["state"] == "refused" and why in looked(host)["why"]
    with running(host):
        assert caches.used_by(host, "p0") == place
        assert not list((place / "VLLM_CACHE_ROOT").iterdir()), "compiled anew"
    said = capsys.readouterr().err
    assert f"{place} is put aside and compiled anew: " in said and why in said
    [aside] = (caches.root(host) / caches.ASIDE).iterdir()
    assert (aside / "VLLM_CACHE_ROOT" / "lock").exists()


@pytest.mark.slow  # real processes, seconds together
def test_what_cannot_be_told_apart_is_not_kept(
    host: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(host["nodes"][0]["cache"]["inputs"]["model"]) / "config.json").unlink()
    with running(host):
        place = caches.used_by(host, "p0")
        assert place == caches.root(host) / caches.UNKEPT / "p0"
        assert caches.keep({"host": host, "kept": 1})["kept"] == []
    assert "what it compiles is not kept" in capsys.readouterr().err


@pytest.mark.slow  # real processes, seconds together
def test_folders_that_nothing_uses_go_but_the_last_ones(host: dict[str, Any]) -> None:
    inputs = host["nodes"][0]["cache"]["inputs"]
    places = []
    for length in (1, 2, 3):
        inputs["args"]["max-model-len"] = length
        places.append(filled(host))
    assert [place.exists() for place in places] == [False, True, True]
    assert not start_stop.clean({"work_dir": host["work_dir"], "dry_run": True})["changed"]
    start_stop.clean({"work_dir": host["work_dir"]})
    assert not caches.root(host).exists()


@pytest.mark.slow  # real processes, seconds together
def test_what_others_get_is_held_against_the_list(host: dict[str, Any]) -> None:
    place = filled(host)
    asked = {"host": host, "node": "p0", "key": place.name}
    offered = caches.offer(asked)
    assert list(offered["files"]) == ["VLLM_CACHE_ROOT/rank_0/graph"]
    came = caches.root(host) / caches.INCOMING / place.name
    shutil.copytree(place, came)
    (came / caches.KEY).unlink()
    shutil.rmtree(place)
    taken = {"host": host, "node": "p0", "record": offered["record"]}
    caches.take(taken)
    assert looked(host)["state"] == "whole" and (place / "VLLM_CACHE_ROOT" / "lock").exists()
    # A host of another key does not take it, nor one where a file is cut.
    host["nodes"][0]["cache"]["inputs"]["args"] = {}
    with pytest.raises(ActionError, match="and this host needs"):
        caches.take(taken)
    host["nodes"][0]["cache"]["inputs"]["args"] = {"max-model-len": 4096}
    with pytest.raises(ActionError, match="cannot be used: VLLM_CACHE_ROOT/rank_0/graph"):
        caches.take(taken)
    assert not came.exists()
    (place / "VLLM_CACHE_ROOT" / "rank_0" / "graph").write_bytes(b"Compiled")
    with pytest.raises(ActionError, match=r"rank_0/graph is not what key\.json says"):
        caches.offer(asked)
