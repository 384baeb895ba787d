"""The files for Prometheus and Grafana, checked by Prometheus' own tool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from needs import needs
from omnikit import config
from omnikit.monitor_files import CONFIG, DASHBOARD, README, RULES, files, write
from omnikit.run import run
from omnikit.topology import make_plan

SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "environments").glob("[!.]*.yaml"))


def made(environment: str, folder: Path, exporter: str | None = None) -> dict[str, str]:
    loaded = config.load(environment, environ={})
    return files(loaded, make_plan(loaded), folder, exporter)


@pytest.mark.parametrize("name", [p.stem for p in SHIPPED if not p.stem.endswith(".local")])
def test_prometheus_accepts_the_files_of_every_environment(tmp_path: Path, name: str) -> None:
    needs("promtool")
    texts = made(name, tmp_path)
    write(tmp_path, texts, dry_run=False)
    done = run(["promtool", "check", "config", tmp_path / CONFIG], check=False)
    assert done.code == 0, done.out + done.err
    assert "1 rule files found" in done.out and "rules found" in done.out
    json.loads(texts[DASHBOARD])


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    texts = made("local", folder)
    assert set(write(folder, texts, dry_run=True).values()) == {"would be written"}
    assert not folder.exists()
    assert set(write(folder, texts, dry_run=False).values()) == {"written"}
    before = (folder / RULES).stat().st_mtime_ns
    (folder / README).write_text("of somebody else")
    done = write(folder, texts, dry_run=False)
    assert done == {**dict.fromkeys(texts, "unchanged"), README: "written"}
    assert (folder / RULES).stat().st_mtime_ns == before
    assert {path.name for path in folder.iterdir()} == set(texts)


def test_the_readme_names_the_targets_and_what_to_do_about_the_proxy(tmp_path: Path) -> None:
    local = made("local", tmp_path)[README]
    assert "| d0 | `127.0.0.1:9100` | decode | local |" in local
    assert f"promtool check config {tmp_path}/prometheus.yml" in local
    assert "counted by status" in local
    fleet = made("2p1d", tmp_path)[README]
    assert "--exporter HOST:PORT" in fleet and "`192.0.2.11:9000`" in fleet
    assert "| c0 | `192.0.2.11:9113` |" in made("2p1d", tmp_path, "192.0.2.11:9113")[README]
    assert "no proxy" in made("colocated", tmp_path)[README]
