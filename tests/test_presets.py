"""Scripts that are another script with some options chosen: the same happens as with these."""

from __future__ import annotations

import argparse
import importlib

import build_from_source
import deploy
import pytest
import restart
import serve
import stop

# Script -> the other, and the options that are chosen.
PRESETS = {
    "run_docker": (deploy, ["--tags=run_docker"]),
    "pip_install": (deploy, ["--tags=pip_install"]),
    "run_server": (deploy, ["--tags=run_server"]),
    "run_proxy": (deploy, ["--tags=run_proxy"]),
    "build_wheels": (build_from_source, ["--only=fetch", "--only=build"]),
    "install_wheels": (build_from_source, ["--only=install"]),
    "check_packages": (build_from_source, ["--only=check"]),
}


@pytest.mark.parametrize("name", PRESETS)
def test_it_does_what_the_other_does_with_these_options(name: str, monkeypatch) -> None:
    other, chosen = PRESETS[name]
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(other, "body", lambda options: seen.append(options) or 7)
    words = ["--environment=2p1d", "--set=ports.proxy=7001", "--dry-run"]
    assert importlib.import_module(name).main(words) == 7
    wanted = vars(other.main.parser().parse_args([*words, *chosen]))
    assert {k: list(v) if k == "only" else v for k, v in vars(seen[0]).items()} == wanted


def test_serve_means_the_colocated_environment_unless_another_is_named(monkeypatch) -> None:
    monkeypatch.setenv("OMNIKIT_ENVIRONMENT", "2p1d")
    assert serve.main.body is deploy.body
    parser = serve.main.parser()
    assert parser.parse_args([]).environment == "colocated"
    assert parser.parse_args(["-e", "local"]).environment == "local"


@pytest.mark.parametrize(("stopped", "code"), [(0, 5), (1, 1)], ids=["stopped", "not stopped"])
def test_restart_deploys_what_was_stopped(stopped: int, code: int, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(stop, "main", lambda words: seen.append(["stop", *words]) or stopped)
    monkeypatch.setattr(deploy, "main", lambda words: seen.append(["deploy", *words]) or 5)
    words = ["--environment=2p1d", "--set=ports.proxy=7001"]
    assert restart.main(words) == code
    assert seen == [["stop", *words], ["deploy", *words, "--yes"]][: 1 if stopped else 2]
