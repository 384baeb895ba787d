from __future__ import annotations

import json
import signal

import install_proxy
import pytest
from port_rooms import free_port
from proxy_backend import Backend
from proxy_settings import SETTINGS

from hostkit.access.service import Service
from hostkit.base import run
from hostkit.base.health import request, wait_until
from omnikit import proxy
from omnikit.access import targets
from omnikit.proxy import install


@pytest.mark.needs("nginx", "lua")
def test_a_second_run_says_unchanged(capsys):
    assert install_proxy.main([]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(
        "unchanged: proxy kind nginx-lua (nginx with Lua is here), program /"
    )
    assert said.err == ""


@pytest.mark.needs("nginx", "lua")
def test_json_is_for_programs(capsys):
    assert install_proxy.main(["--json", "--dry-run"]) == 0
    found = install.find()
    assert found is not None
    assert json.loads(capsys.readouterr().out) == {
        "kind": "nginx-lua",
        "action": "unchanged",
        "why": "nginx with Lua is here",
        "nginx": found.path,
        "modules_dir": found.modules_dir,
        "router": None,
    }


def test_the_router_asked_for_without_a_folder_is_wrong_input(capsys):
    assert install_proxy.main(["--kind", "vllm-router"]) == 2
    assert "--venv DIR" in capsys.readouterr().err


def test_a_relative_folder_is_taken_from_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert install_proxy.main(["--kind", "vllm-router", "--venv", "v", "--dry-run"]) == 0
    assert f"program {tmp_path}/v/bin/vllm-router" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_router_is_installed_once_and_hands_over(tmp_path, capsys):
    """The whole way for a machine without nginx: install, start, one completion through it."""
    words = ["--kind", "vllm-router", "--venv", str(tmp_path / "v"), "--json"]
    assert install_proxy.main(words) == 0
    first = capsys.readouterr()
    assert json.loads(first.out)["action"] == "installed"
    assert "Collecting vllm-router==0.1.17" in first.err
    assert install_proxy.main(words) == 0
    assert json.loads(capsys.readouterr().out)["action"] == "unchanged"

    settings = {**SETTINGS, "venv": str(tmp_path / "v"), "router_metrics_port": free_port()}
    prefill, decode = Backend("prefill"), Backend("decode")
    spec = proxy.ProxySpec(
        kind="vllm-router",
        listen_host="127.0.0.1",
        listen_port=free_port(),
        prefill=(prefill.address,),
        decode=(decode.address,),
        run_dir=str(tmp_path),
        log_dir=str(tmp_path),
        settings=settings,
    )
    url = f"http://127.0.0.1:{spec.listen_port}"
    with (tmp_path / "output").open("wb") as output:
        process = run.start(proxy.command(spec), output=output)
    try:
        ready = f"{url}{proxy.health_path(spec)}"
        up = wait_until(lambda: request(ready, timeout_s=1).status == 200, 30, 0.05)
        assert up, (tmp_path / "output").read_text(encoding="utf-8")
        assert not targets.takes_several(Service(url), 10), "nor is it asked"
        body = {"model": "m", "prompt": "x", "max_tokens": 5}
        assert request(f"{url}/v1/completions", body=body, timeout_s=10).status == 200
    finally:
        run.end_group(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
        prefill.close()
        decode.close()
    (first_part,) = [one.data for one in prefill.seen if one.method == "POST"]
    (second_part,) = [one.data for one in decode.seen if one.method == "POST"]
    assert first_part["max_tokens"] == 1
    assert first_part["kv_transfer_params"]["do_remote_decode"] is True
    assert second_part["max_tokens"] == 5
    assert second_part["kv_transfer_params"] == json.loads(prefill.hand_over)
