"""Profiles of stand-in servers with a real proxy: switched on, recorded, switched off, and faults.

The tests share one deployment and build on each other, in order. Real engines:
test_deploy.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

import pytest
from docker_host import wait_for
from needs import needs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
# Apart from those of other tests, which run at the same time; decode's begin 100 higher.
PORTS = "{api_base: 12000, master_base: 12200, proxy: 12400, kv_side_channel: 12500, zmq: 12700}"


@dataclass
class Site:
    """An environment of stand-ins on this machine."""

    folder: Path

    def argv(self, script: str, *words: str) -> list[str]:
        site = str(self.folder / "profiled.yaml")
        return [sys.executable, f"scripts/{script}", "-e", site, *words]

    def run(self, script: str, *words: str, code: int = 0) -> str:
        """Run a script as from a cron job, without a terminal; what it printed."""
        done = subprocess.run(
            self.argv(script, *words),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            start_new_session=True,
        )
        assert done.returncode == code, done.stderr + done.stdout
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def profile(self, *words: str, code: int = 0) -> str:
        return self.run("profile_serving.py", "--out", str(self.out), *words, code=code)

    @property
    def out(self) -> Path:
        """Where results are kept."""
        return self.folder / "out"

    def results(self) -> list[Path]:
        return sorted(self.out.iterdir()) if self.out.is_dir() else []

    def state(self) -> dict[str, tuple[int, str]]:
        """Process and settings of every node, as the host has written them down."""
        records = {}
        for path in sorted((self.folder / "work" / "state").glob("*.json")):
            try:
                record = json.loads(path.read_text())
            except FileNotFoundError:
                continue  # it has just been stopped
            if not record["servers"]:
                continue  # it is just being started
            records[path.stem] = (record["servers"][0]["process"]["pid"], record["digest"])
        return records

    def digests(self) -> dict[str, str]:
        return {name: digest for name, (_, digest) in self.state().items()}

    def pids(self) -> dict[str, int]:
        return {name: pid for name, (pid, _) in self.state().items()}

    def as_before(self, before: dict[str, str]) -> None:
        """All serve, with the settings of before, and nothing of a profile is left."""
        found = json.loads(self.run("status.py", "--json"))
        assert found["ok"], found
        assert self.digests() == before
        assert "nothing to change" in self.run("deploy.py")
        assert list((self.folder / "work").rglob("*.trace.json*")) == []
        assert list((self.folder / "work" / "jobs").glob("omnikit-profile-*")) == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    needs("nginx", "lua")
    folder = tmp_path_factory.mktemp("profile")
    text = (ROOT / "tests" / "environments" / "breadth.yaml").read_text()
    text = text.replace("build/test-breadth", f"{folder}/work")
    text = text.replace("tests/kit/fleet_server.py", f"{ROOT}/tests/kit/fleet_server.py")
    text = re.sub("^ports: .*", f"ports: {PORTS}", text, flags=re.MULTILINE)
    (folder / "profiled.yaml").write_text(text + "profiling: {free_mib: 8}\n")
    made = Site(folder)
    try:
        made.run("deploy.py")
        yield made
    finally:
        made.run("clean_up.py", "--yes", "--logs")


def test_one_instance_alone_is_restarted_recorded_and_brought_back(site: Site) -> None:
    before = site.state()
    said = site.profile("--instance", "p1", "--steps", "3", "--yes")
    assert "p1: out of the proxy" in said and "p1: in the proxy again" in said
    assert "aten::addmm" in said and "communication" in said
    site.as_before({name: digest for name, (_, digest) in before.items()})
    after = site.pids()
    assert {name for name, (pid, _) in before.items() if after[name] != pid} == {"p1"}
    [folder] = site.results()
    assert {path.name for path in folder.iterdir()} == {"traces", "summary.json", "summary.svg"}
    [trace] = (folder / "traces" / "p1").iterdir()
    assert trace.name.endswith(".pt.trace.json.gz")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["faults"] == [] and list(summary["roles"]) == ["prefill"]
    assert summary["roles"]["prefill"]["step_count"] == 3
    assert summary["roles"]["prefill"]["communication_share"] == 0.2
    assert summary["load"]["answered"] == summary["load"]["sent"] > 0


def test_all_instances_as_json(site: Site) -> None:
    before = site.digests()
    done = subprocess.run(
        site.argv("profile_serving.py", "--yes", "--json", "--out", str(site.out)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    summary = json.loads(done.stdout)
    assert [one["name"] for one in summary["instances"]] == ["p0", "p1", "d0"]
    assert list(summary["roles"]) == ["prefill", "decode"]
    assert Path(summary["folder"]) == site.results()[-1]
    site.as_before(before)


def test_nobody_can_be_asked_and_nothing_is_restarted(site: Site) -> None:
    before = site.state()
    said = site.profile("--role", "decode", code=2)
    assert "d0 would be restarted with the profiler on" in said and "--yes" in said
    assert site.state() == before


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("dies", "out of memory while profiling"),
        ("refuses", "none of 4 requests was answered"),
        ("none", "has no /start_profile (status 404)"),
    ],
)
def test_a_failure_in_the_middle_brings_all_back(site: Site, how: str, said: str) -> None:
    before, results = site.digests(), site.results()
    words = ["--set", f"profiling.server.env.STAND_IN_PROFILE={how}", "--role", "decode"]
    found = site.profile(*words, "--yes", code=1)
    assert said in found
    assert "bringing back what ran before" in found
    if how == "none":
        assert "profiling.server" in found and "profiling.start" in found
    site.as_before(before)
    assert site.results() == results


def test_a_trace_that_is_cut_off_is_told_and_kept(site: Site) -> None:
    before = site.digests()
    words = ["--set", "profiling.server.env.STAND_IN_PROFILE=cut", "--instance", "d0"]
    said = site.profile(*words, "--yes", code=1)
    assert "is cut off or damaged" in said and "the profile is not complete" in said
    summary = json.loads((site.results()[-1] / "summary.json").read_text())
    assert len(summary["faults"]) == 1 and summary["roles"]["decode"]["step_ms"] is None
    site.as_before(before)


def test_a_full_disk_for_the_result_loses_no_figures(site: Site) -> None:
    needs("mount", root=True)
    before = site.digests()
    full = site.folder / "full"
    full.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "omnikit-test", str(full)]
    subprocess.run(mount, check=True)
    try:
        said = site.profile("--instance", "p1", "--steps", "3", "--yes", "--out", str(full), code=1)
        assert not list(full.glob("*/summary.svg")) and not list(full.glob("*/.new*"))
    finally:
        subprocess.run(["umount", str(full)], check=True)
    assert "aten::addmm" in said and "the result cannot be kept: No space left" in said
    site.as_before(before)


def test_an_interrupt_while_a_server_starts_brings_all_back(site: Site) -> None:
    before = site.digests()
    slow = ["--set", "profiling.server.env.STAND_IN_DELAY_S=60", "--instance", "d0", "--yes"]
    running = subprocess.Popen(
        site.argv("profile_serving.py", "--out", str(site.out), *slow),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: site.digests().get("d0", before["d0"]) != before["d0"], "d0 restarts", 300)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=300)
    finally:
        running.terminate()
        running.wait(60)
    assert running.returncode == 130, said
    assert "bringing back what ran before" in said and "Traceback" not in said
    site.as_before(before)


def test_a_server_that_does_not_come_up_with_its_profiler_is_brought_back(site: Site) -> None:
    before = site.digests()
    words = ["--set", "profiling.server.env.STAND_IN_FAILS=no profiler here", "--instance", "p0"]
    said = site.profile(*words, "--yes", code=1)
    assert "no profiler here" in said
    site.as_before(before)


def test_no_place_for_traces_is_said_before_anything_is_restarted(site: Site) -> None:
    before = site.state()
    file = site.folder / "a-file"
    file.write_text("")
    said = site.profile("--yes", "--set", f"profiling.dir={file}", code=2)
    assert "the traces of p0 cannot be written: Not a directory" in said
    said = site.profile("--yes", "--set", "profiling.free_mib=100000000", code=2)
    assert "profiling.free_mib wants 100000000" in said
    assert site.state() == before


def test_settings_that_are_not_those_of_what_runs_are_refused(site: Site) -> None:
    before = site.state()
    said = site.profile("--yes", "--set", "roles.decode.server.env.A=1", code=2)
    assert "what runs is not what the settings say; a deploy would restart d0" in said
    assert site.state() == before


def test_an_environment_that_does_not_run_is_said_with_its_state(site: Site) -> None:
    site.run("stop.py", "--instance", "d0")
    said = site.profile("--yes", code=2)
    assert "does not run as a whole: d0 not ready" in said and "invoke deploy" in said
    site.run("deploy.py")


def profile(*words: str) -> Any:
    return subprocess.run(
        [sys.executable, "scripts/profile_serving.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_a_dry_run_shows_what_each_release_of_the_engine_is_told() -> None:
    done = profile("-e", "2p1d", "--role", "prefill", "--token-threshold", "64", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "PROFILER_TOKEN_THRESHOLD=64" in done.stdout and "d0" not in done.stdout
    assert "VLLM_TORCH_PROFILER_DIR=/data/omnikit/profiles/p1" in done.stdout
    assert "PROFILER_STOP_STEP=5" in done.stdout
    large = profile("-e", "18p1d", "--dry-run").stdout
    assert "at most 576 completions, up to 288 at the same time" in large
    older = ["--set", "profile.omni_version=2025-08", "--instance", "d1", "--dry-run", "--json"]
    would = json.loads(profile("-e", "2p1d", *older).stdout)
    assert would["restart"] == {
        name: [f"VLLM_TORCH_PROFILER_DIR=/data/omnikit/profiles/{name}"] for name in ("d0", "d1")
    }
    assert would["start"] == "endpoint"
    cpu = json.loads(profile("-e", "local", "--steps", "7", "--dry-run", "--json").stdout)
    assert cpu["steps"] == 7 and cpu["restart"]["d0"][0].startswith("--profiler-config {")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--instance", "p7"], "there is no instance 'p7', is it 'p1'?"),
        (["--instance", "p0", "--role", "decode"], "no decode instance is among these"),
        (["--role", "colocated"], "environment local has: prefill, decode"),
        (["--steps", "0"], "'0' is no whole number above 0"),
        (["--token-threshold", "9"], "this engine has no threshold"),
        (["--set", "profiling.input_words=4090"], "but p0 takes 4096 in all"),
        (["--set", "profiling.start=none"], "nothing is known of a profiler of this engine"),
        (["--set", "profiling.instances=[x]"], "there is no instance 'x'"),
    ],
)
def test_misuse_exits_2(words: list[str], said: str) -> None:
    done = profile("-e", "local", *words)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
