from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostkit.base.errors import ActionError, InputError
from omnikit.fleet import apt as fleet_apt
from omnikit.proxy import install as proxy_install
from omnikit.proxy import spec


def touch(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\necho 'wrong module' >&2\nexit 1\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def lua_modules(folder: Path) -> list[str]:
    return [touch(folder / name) for name in spec.LUA_MODULES]


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without nginx, and without a way to get it."""
    monkeypatch.setattr(spec, "NGINX_PLACES", (str(tmp_path / "sbin/nginx"),))
    monkeypatch.setattr(spec, "SOURCE_BUILD_NGINX", str(tmp_path / "local/nginx"))
    monkeypatch.setattr(spec, "MODULE_PLACES", (str(tmp_path / "a"), str(tmp_path / "b")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def router(venv: Path, version: str) -> None:
    touch(venv / "bin/vllm-router")
    (venv / f"lib/python3.11/site-packages/vllm_router-{version}.dist-info").mkdir(parents=True)


def install(kind, venv=None, dry_run=False):
    return proxy_install.install(
        kind, venv, dry_run=dry_run, lock_timeout_s=1, report=lambda text: None
    )


def test_nginx_counts_only_with_the_module(bare):
    assert proxy_install.find() is None
    nginx = touch(bare / "sbin/nginx")
    assert proxy_install.find() is None
    lua_modules(bare / "b")
    assert proxy_install.find() == proxy_install.Nginx(nginx, str(bare / "b"))
    (bare / "b" / spec.LUA_MODULES[0]).unlink()
    assert proxy_install.find() is None


def test_nginx_on_the_path_is_found(bare):
    lua_modules(bare / "a")
    assert proxy_install.find() is None
    on_path = touch(bare / "bin/nginx")
    assert proxy_install.find() == proxy_install.Nginx(on_path, str(bare / "a"))


def test_what_is_configured_is_the_only_place_looked_at(bare):
    touch(bare / "sbin/nginx")
    lua_modules(bare / "a")
    own = touch(bare / "own/nginx")
    assert proxy_install.find(nginx=str(bare / "none")) is None
    assert proxy_install.find(modules_dir=str(bare / "none")) is None
    found = proxy_install.find(nginx=own, modules_dir=str(bare / "a"))
    assert found is not None and found.path == own


@pytest.mark.needs("nginx", "lua")
def test_this_machine_s_nginx_loads_the_module():
    found = proxy_install.find()
    assert found is not None
    assert proxy_install.fault(found) is None


@pytest.mark.needs("nginx", "lua")
def test_a_module_that_nginx_does_not_load_is_found_out(tmp_path):
    found = proxy_install.find()
    assert found is not None
    other = proxy_install.Nginx(found.path, touch(tmp_path / "x.so"))
    assert "x.so" in (proxy_install.fault(other) or "")


@pytest.mark.needs("nginx", "lua")
@pytest.mark.parametrize("kind", ["auto", "nginx-lua"])
def test_an_nginx_that_is_here_is_left_as_it_is(kind):
    outcome = install(kind)
    assert (outcome.kind, outcome.action) == ("nginx-lua", "unchanged")
    assert outcome.nginx and outcome.modules_dir


def test_auto_falls_back_to_the_router_and_says_why(bare):
    router(bare / "venv", "0.1.17")
    outcome = install("auto", bare / "venv")
    assert (outcome.kind, outcome.action) == ("vllm-router", "unchanged")
    assert outcome.why == "nginx with Lua cannot be had: this system has no apt-get"
    assert outcome.router == str(bare / "venv/bin/vllm-router")


def test_auto_falls_back_where_nginx_refuses_the_module(bare):
    touch(bare / "sbin/nginx")
    lua_modules(bare / "a")
    outcome = install("auto", bare / "venv", dry_run=True)
    assert outcome.kind == "vllm-router"
    assert "wrong module" in outcome.why


def test_auto_falls_back_where_the_packages_cannot_be_fetched(bare, monkeypatch):
    """A machine that knew its packages when it had a network still has their lists."""
    apt = Path(touch(bare / "bin/apt-get"))
    refuse = "echo E: no >&2; exit 100"
    apt.write_text(f'#!/bin/sh\ncase "$*" in *--simulate*) exit 0;; esac\n{refuse}\n')
    touch(bare / "bin/dpkg-query")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(fleet_apt, "POLICY", bare / "policy")
    router(bare / "venv", "0.1.17")
    outcome = install("auto", bare / "venv")
    assert (outcome.kind, outcome.action) == ("vllm-router", "unchanged")
    assert "exit status 100 from: apt-get install" in outcome.why and "E: no" in outcome.why
    with pytest.raises(ActionError, match="E: no"):
        install("nginx-lua", bare / "venv")


def test_nginx_that_was_asked_for_is_not_replaced_by_the_router(bare):
    with pytest.raises(InputError) as caught:
        install("nginx-lua", bare / "venv")
    assert "this system has no apt-get" in caught.value.what
    assert "apt-get install nginx libnginx-mod-http-lua" in (caught.value.todo or "")


def test_the_router_needs_a_folder(bare):
    with pytest.raises(InputError) as caught:
        install("auto")
    assert caught.value.where == "--venv"


def test_another_version_of_the_router_does_not_count(bare):
    router(bare / "venv", "0.1.16")
    assert install("vllm-router", bare / "venv", dry_run=True).action == "would install"
    router(bare / "venv", "0.1.17")
    assert install("vllm-router", bare / "venv", dry_run=True).action == "unchanged"


def test_a_dry_run_changes_nothing(bare, monkeypatch):
    calls = bare / "calls"
    apt = Path(touch(bare / "bin/apt-get"))
    apt.write_text(f'#!/bin/sh\necho "$*" >> {calls}\n', encoding="utf-8")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(fleet_apt, "POLICY", bare / "policy")
    outcome = install("auto", dry_run=True)
    assert (outcome.kind, outcome.action) == ("nginx-lua", "would install")
    assert "--simulate" in calls.read_text(encoding="utf-8")
    assert len(calls.read_text(encoding="utf-8").splitlines()) == 1
