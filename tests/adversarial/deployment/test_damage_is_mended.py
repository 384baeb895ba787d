"""What is promised where somebody or something damages what a deployment keeps on a host:

a deploy sees it, names it, and puts it right, without a restart where none is needed; a second one
finds nothing more to do. The other verbs work all the same.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Callable

import pytest
from host_cases import a_host, a_node, clean, processes, reaches, record_of
from small_site import Site

from hostkit.base import records as base_pids
from hostkit.base.health import wait_until
from hostkit.nodes import needed, start_stop

pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua")]


def _as_folder(work: Path) -> None:
    (work / "bundle" / "p0" / "start.sh").unlink()
    (work / "bundle" / "p0" / "start.sh").mkdir()


def _as_link(work: Path) -> None:
    path = work / "bundle" / "p0" / "start.sh"
    path.rename(work / "elsewhere.sh")
    path.symlink_to(work / "elsewhere.sh")


def _cut(work: Path) -> None:
    path = work / "bundle" / "host.json"
    path.write_text(path.read_text()[:100])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a start script that somebody edited": lambda work: (
        (work / "bundle" / "p0" / "start.sh").write_text("exit 1\n")
    ),
    "a start script that cannot be run": lambda work: (
        (work / "bundle" / "p0" / "start.sh").chmod(0o600)
    ),
    "a start script that is a folder": _as_folder,
    "a start script that is a link": _as_link,
    "a host file that was cut": _cut,
    "no bundle": lambda work: shutil.rmtree(work / "bundle"),
    "no code": lambda work: shutil.rmtree(work / "scripts"),
    "a file where the code was": lambda work: (
        shutil.rmtree(work / "scripts"),
        (work / "scripts").write_text(""),
    ),
    "no good archive": lambda work: (work / "archives" / "good.pyz").unlink(),
    "a good archive that was cut": lambda work: (work / "archives" / "good.pyz").write_bytes(b"PK"),
    "no present archive": lambda work: (work / "archives" / "incoming.pyz").unlink(),
}


def test_whatever_is_damaged_is_put_right_and_what_serves_goes_on(site: Site) -> None:
    pids = {name: site.pid(name) for name in site.records()}
    for what, damage in DAMAGE.items():
        damage(site.work)
        said = site.deploy("one")
        assert "restart" not in said and "is ready" in said, f"{what}: {said}"
        if what != "no present archive":  # which the next deployment brings anyway
            assert "to do: prove it" in said, f"{what}: {said}"
        assert {name: site.pid(name) for name in site.records()} == pids, what
        script = site.work / "bundle" / "p0" / "start.sh"
        assert "VERSION=one" in script.read_text() and not script.is_symlink(), what
        assert script.stat().st_mode & 0o777 == 0o700, what
        assert json.loads((site.work / "bundle" / "host.json").read_text())["nodes"], what
        assert site.version_of("good.pyz") == "one", what
    assert "nothing to change" in site.deploy("one")
    assert site.releases() == ["one"]


def run_folders(site: Site) -> list[Path]:
    host = json.loads((site.work / "bundle" / "host.json").read_text())
    return [Path(node["temp_dir"]) for node in host["nodes"]]


@pytest.mark.parametrize(
    "words",
    [
        ("deploy.py", "--yes"),
        ("reload_proxy.py", "--set", "proxy.keepalive=77"),
        ("roll_prefill.py", "--instance", "p0"),
        ("status.py",),
        ("fetch_logs.py", "--out", "OUT"),
        ("stop.py", "--instance", "p0"),
    ],
    ids=lambda words: str(words[0]).partition("_")[0],
)
def test_every_verb_works_where_the_run_folder_was_removed(
    site: Site, tmp_path: Path, words: tuple[str, ...]
) -> None:
    proxy = site.pid("c0")
    for folder in run_folders(site):
        shutil.rmtree(folder, ignore_errors=True)
    told = ("--set", "server.env.VERSION=one")
    site.run(*(str(tmp_path) if word == "OUT" else word for word in words), *told)
    if words[0] != "status.py":
        site.deploy("one")
        assert [folder for folder in run_folders(site) if not folder.is_dir()] == []
    assert site.serves("one") and site.pid("c0") == proxy


def test_stop_ends_what_runs_though_the_bundle_is_gone(site: Site) -> None:
    shutil.rmtree(site.work / "bundle")
    assert "p0: stopped" in site.run("stop.py")
    assert site.versions() == {}
    site.deploy("one")


def test_stop_ends_what_runs_after_a_deploy_elsewhere_was_refused(site: Site) -> None:
    site.deploy("1")
    pid = site.pid("p0")
    elsewhere = ("--set", "paths.work_dir=/dev/null/x")
    assert "is no folder" in site.run("deploy.py", *elsewhere, code=2)
    assert "p0: stopped" in site.run("stop.py")
    assert not Path(f"/proc/{pid}").exists()


def test_a_node_whose_supervisor_is_gone_is_not_unchanged(tmp_path: Path) -> None:
    """Its servers, which hear no SIGTERM, go on: nobody would see them die."""
    host = a_host(tmp_path, a_node(tmp_path, "p0", "deaf"))
    try:
        start_stop.up(host, {"prefill"})
        assert reaches(host, "p0", "ready")
        before = record_of(host, "p0")
        supervisor = before["supervisor"]["pid"]
        start_stop._signal(supervisor, 9)
        assert wait_until(lambda: base_pids.start_ticks(supervisor) is None, 20, 0.02)
        assert processes(before)  # they serve
        looked = needed.look(host)
        assert looked == {"p0": "restart"}
        why = needed.reasons(host, looked, tmp_path / "bundle" / "host.json")
        assert "supervisor has ended" in why["p0"]
        assert start_stop.up(host, {"prefill"}) == {"p0": "restarted"}
        assert reaches(host, "p0", "ready") and not processes(before)
        assert needed.look(host) == {"p0": "unchanged"}
    finally:
        clean(host)
