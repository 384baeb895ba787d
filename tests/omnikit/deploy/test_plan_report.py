"""What invoke plan prints."""

from __future__ import annotations

import json

import pytest

from omnikit.config import config
from omnikit.deploy import plan_report


def shown(capsys, environment: str, *assignments: str, **options) -> str:
    loaded = config.load(environment, assignments=assignments, environ={})
    assert plan_report.show(loaded, **{"as_json": False, **options}) == 0
    return capsys.readouterr().out


def test_a_fleet_shows_hosts_devices_ports_ranks_and_files(capsys) -> None:
    text = shown(capsys, "2p1d")
    for word in ("192.0.2.14", "0-15", "9101-9116", "16-31", "192.0.2.13:8100", "omni-nginx"):
        assert word in text
    assert "d1:/data/omnikit/bundle/d1/start.sh  (create)" in text


def test_commands_and_files_are_shown_in_full_when_asked(capsys) -> None:
    text = shown(capsys, "qwen2.5", commands=True, contents=True)
    assert "vllm serve /data/Qwen2.5-0.5B-Instruct" in text
    assert "--- s0: s0/start.sh" in text and "#!/usr/bin/env bash" in text


def test_json_has_whole_commands_and_variables(capsys) -> None:
    data = json.loads(shown(capsys, "2p1d", as_json=True))
    decode = next(node for node in data["nodes"] if node["name"] == "d1")
    last = decode["servers"][15]
    assert last["env"]["VLLM_DP_RANK"] == "31"
    assert last["argv"][-1] == "9116"
    assert data["proxy"]["port"] == 7000


@pytest.mark.parametrize("environment", ["local", "2p1d"])
def test_secrets_are_not_printed(capsys, tmp_path, environment: str) -> None:
    (tmp_path / "key").write_text("LEAK")
    secret = f"{{file: {tmp_path}/key}}"
    given = [f"server.env.db_password={secret}", f"server.args.api-key={secret}"]
    for form in ({"commands": True, "contents": True}, {"as_json": True}):
        text = shown(capsys, environment, *given, **form)
        assert "LEAK" not in text and "[redacted]" in text and "db_password" in text


def test_what_would_be_installed_first_is_said(capsys, tmp_path) -> None:
    text = shown(capsys, "local", f"engine.venv={tmp_path}/none", f"model.path={tmp_path}/m")
    assert "before that: install the engine into" in text
    assert "before that: make the model" in text


@pytest.mark.parametrize(("numbers", "text"), [((), ""), ((3,), "3"), ((0, 1, 2, 5), "0-2,5")])
def test_numbers_as_ranges(numbers, text) -> None:
    assert plan_report.ranges(numbers) == text


def test_notes_on_the_settings_are_said(capsys) -> None:
    image = "container.image=r.io/omniinfer:20260101"
    text = shown(capsys, "2p1d", image, "ports.proxy=8000")
    assert "note: configs/defaults.yaml:" in text and "nothing listens on its master port" in text
    data = json.loads(shown(capsys, "2p1d", image, "ports.proxy=8000", as_json=True))
    assert len(data["notes"]) == 1
    assert "note: " not in shown(capsys, "2p1d", image)


def test_commands_say_how_each_host_gets_its_image(capsys) -> None:
    text = shown(capsys, "2p1d", commands=True)
    assert '  image on d1: docker pull --platform "linux/$(uname -m)" swr.cn-' in text
    text = shown(capsys, "2p1d", "image.platform=linux/arm64", commands=True)
    assert "  image on p1: docker pull --platform linux/arm64 swr.cn-" in text
    assert "image on" not in shown(capsys, "local", commands=True)
