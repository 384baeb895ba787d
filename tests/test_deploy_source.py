"""The steps sync_code and pip_install of whole deployments: copied, installed, restarted at need.

The servers are stand-ins (fleet_server.py); source, copy, pip and its Python are real. The
tests share one deployment and build on each other, in order.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

import pytest
import source_cases

from hostkit.source.git import VLLM

ROOT = Path(__file__).resolve().parents[1]
NAME = "with-source"
pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua", "rsync")]


@dataclass
class Site:
    """An environment on this machine whose servers are said to use a source tree."""

    folder: Path
    source: Path
    python: Path

    @property
    def copy(self) -> Path:
        return self.folder / "hosts" / "omniinfer"

    def run(self, script: str, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, f"scripts/{script}", "-e", str(self.folder / f"{NAME}.yaml")]
        done = subprocess.run(
            [*argv, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            start_new_session=True,
        )
        assert done.returncode == code, done.stderr
        return done

    def deploy(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Deploy; the last of the JSON lines that it prints."""
        done = self.run("deploy.py", "--json", *words, code=code)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert lines[0]["kind"] == "command"
        last: dict[str, Any] = lines[-1]
        return last

    def pids(self) -> dict[str, Any]:
        """Of all servers, by name, as the host has written them down."""
        records = (self.folder / "hosts" / "work" / "state").glob("*.json")
        servers = [one for path in records for one in json.loads(path.read_text())["servers"]]
        return {server["name"]: server["process"]["pid"] for server in servers}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("source")
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    made = Site(folder, source_cases.make_patchable(folder / "src"), venv / "bin" / "python")
    text = (ROOT / "tests" / "environments" / "breadth.yaml").read_text()
    text = text.replace("build/test-breadth", f"{folder}/hosts/work")
    text = text.replace("tests/kit/fleet_server.py", f"{ROOT}/tests/kit/fleet_server.py")
    text = text.replace(
        "paths: {", f"paths: {{code_dir: {made.copy}, local_code_dir: {made.source}, "
    )
    ports = (
        "{api_base: 30300, master_base: 30500, proxy: 30700, kv_side_channel: 30800, zmq: 31000}"
    )
    text = re.sub("^ports: .*", f"ports: {ports}", text, flags=re.MULTILINE)
    text += (
        f"source: {{python: {made.python}, editable_args: [--no-deps, --no-build-isolation],"
        f" patches: {source_cases.PATCH_SCRIPT}}}\n"
    )
    (folder / f"{NAME}.yaml").write_text(text)
    try:
        yield made
    finally:
        made.run("clean_up.py", "--yes", "--logs")


def test_a_first_deployment_copies_installs_and_starts(site: Site) -> None:
    result = site.deploy()
    assert result["kind"] == "result" and result["ready"]
    assert set(result["changed"]) == {"p0", "p1", "d0", "c0"}
    assert "created" in result["source"]["local"]
    [said] = result["packages"].values()
    assert said == "vllm 0.9.0 installed, omni_infer 0.4.1 installed, vllm has its 3 patches"
    assert "rank = local_rank + offset" in (site.copy / VLLM / "vllm" / "core.py").read_text()
    code = "import vllm, omni; print(vllm.__file__, omni.__file__)"
    used = subprocess.check_output([site.python, "-c", code], cwd="/", text=True)
    copy = site.copy
    assert used.split() == [
        f"{copy}/infer_engines/vllm/vllm/__init__.py",
        f"{copy}/omni/__init__.py",
    ]


def test_a_second_deployment_changes_nothing(site: Site) -> None:
    before = site.pids()
    result = site.deploy()
    assert (result["changed"], result["source"], result["packages"]) == ({}, {}, {})
    assert site.pids() == before


def test_a_changed_file_is_copied_alone_and_restarts_its_users(site: Site) -> None:
    before = site.pids()
    (site.source / "omni" / "__init__.py").write_text("value = 2\n")
    dry = site.run("deploy.py", "--dry-run").stdout
    assert "local: source: 0 would be created, 1 would be updated" in dry
    assert "p0, why: its source changes" in dry
    assert (site.copy / "omni" / "__init__.py").read_text() == "value = 1\n"
    result = site.deploy("--yes")
    assert set(result["changed"].values()) == {"restart"} and "c0" not in result["changed"]
    assert result["source"]["local"].startswith("0 created, 1 updated, 0 deleted")
    [said] = result["packages"].values()
    assert said == "vllm 0.9.0 unchanged, omni_infer 0.4.1 unchanged, vllm has its 3 patches"
    after = site.pids()
    assert after["c0"] == before["c0"] and not {after[n] for n in after} <= set(before.values())


def test_a_file_that_no_server_uses_is_copied_and_restarts_nothing(site: Site) -> None:
    before = site.pids()
    (site.source / "README.md").write_text("more\n")
    result = site.deploy()
    assert result["changed"] == {} and "1 updated" in result["source"]["local"]
    assert site.pids() == before


def test_what_describes_one_package_reinstalls_that_one(site: Site) -> None:
    project = site.source / "infer_engines" / "vllm" / "pyproject.toml"
    project.write_text(project.read_text() + "# another line\n")
    result = site.deploy("--yes")
    [said] = result["packages"].values()
    assert said == "vllm 0.9.0 installed, omni_infer 0.4.1 unchanged, vllm has its 3 patches"
    site.run("deploy.py", "--tags", "sync_code")
    said = site.run("sync_code.py").stderr
    assert "vllm has its 3 patches; 1 files with changes of your own" in said


def test_an_unpatched_copy_is_refused_by_name(site: Site) -> None:
    core = site.copy / VLLM / "vllm" / "core.py"
    good, before = core.read_text(), site.pids()
    core.write_text(good.replace("rank = local_rank + offset\n", ""))
    failed = site.run("deploy.py", "--tags", "pip_install", code=2).stderr
    assert f"{site.copy / VLLM}: this vLLM lacks 2 of 3 patches of omni-infer" in failed
    assert "scale_out.patch, on_top.patch" in failed and "invoke sync-code" in failed
    assert site.pids() == before
    core.write_text(good)


def test_the_steps_one_by_one(site: Site) -> None:
    before = site.pids()
    (site.source / "omni" / "__init__.py").write_text("value = 3\n")
    site.run("deploy.py", "--tags", "sync_code")
    assert (site.copy / "omni" / "__init__.py").read_text() == "value = 3\n"
    assert site.pids() == before
    said = site.run("deploy.py", "--tags", "pip_install").stderr
    assert "vllm 0.9.0 unchanged, omni_infer 0.4.1 unchanged" in said
    done = site.run("deploy.py", "--tags", "run_server", "--yes")
    assert f"p0: its source differs: {site.copy} was copied since" in done.stderr
    assert site.pids()["p0"] != before["p0"]


def test_without_the_step_a_changed_source_stays_here(site: Site) -> None:
    (site.source / "omni" / "__init__.py").write_text("value = 4\n")
    result = site.deploy("--skip-tags", "sync_code")
    assert (result["changed"], result["source"]) == ({}, {})
    assert (site.copy / "omni" / "__init__.py").read_text() == "value = 3\n"


def test_a_failed_installation_leaves_the_servers_alone(site: Site) -> None:
    before = site.pids()
    project = site.source / "pyproject.toml"
    good = project.read_text()
    project.write_text('[build-system]\nrequires = []\nbuild-backend = "nothing"\n')
    failed = site.deploy("--yes", code=1)
    assert "the installation failed" in failed["error"] and "invoke pip-install" in failed["error"]
    assert site.pids() == before
    project.write_text(good)
