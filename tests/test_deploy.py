"""The whole thing for real: deploy, use, break, mend and stop real vLLM servers on CPU.

The tests of the class share one deployment and build on each other, in order: each start of three
engines costs a minute.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Iterator

import pytest
import vllm_parser
from load_cases import a_load
from prometheus_server import prometheus
from tutorial import Walk, chapters

from hostkit.base import records
from hostkit.base.health import metric, request, wait_until
from omnikit.config import config as config_config
from omnikit.deploy import smoke_test
from omnikit.load import measurement, targets
from omnikit.load.results import ok
from omnikit.load.targets import DRIVER, ENV, Place
from omnikit.monitor import files
from omnikit.topology.topology import make_plan

ROOT = Path(__file__).resolve().parents[1]
PD = "tests/environments/pd.yaml"
SINGLE = "tests/environments/single.yaml"
PROMPTS = [
    "The quick brown fox jumps over the lazy dog.",
    "第一台服务器负责预填充，第二台负责解码。",
    "x" * 300,
]

pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua")]


def script(name: str, *words: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Run a script as a user would, from the project's folder."""
    return subprocess.run(
        [sys.executable, f"scripts/{name}", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def status(environment: str) -> dict[str, Any]:
    done = script("status.py", "-e", environment, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 0) == found["ok"]
    return found


def pids(environment: str) -> dict[str, int]:
    return {s["name"]: s["pid"] for n in status(environment)["nodes"] for s in n["servers"]}


def complete(base: str, prompt: str, **more: Any) -> dict[str, Any]:
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 12, "temperature": 0, **more}
    answer = request(base + "/v1/completions", timeout_s=120, body=body)
    assert answer.status == 200, answer.text
    data: dict[str, Any] = answer.json()
    return data


def leftovers(work_dir: Path) -> list[str]:
    """Processes whose command line or folder belongs to a test deployment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(work_dir) in line:
            found.append(line)
    return found


def counted(port: int, name: str) -> float:
    """A metric of a server here."""
    return metric(request(f"http://127.0.0.1:{port}/metrics", timeout_s=30).text, name) or 0.0


@pytest.fixture(scope="class")
def loads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of a class keep the results of loads."""
    return tmp_path_factory.mktemp("loads")


@pytest.fixture(scope="class")
def stopped_after(engine_python: Path) -> Iterator[None]:
    """Nothing runs before, and nothing is left after, whatever the tests did."""
    for environment in (PD, SINGLE):
        script("stop.py", "-e", environment)
    yield
    for environment in (PD, SINGLE):
        done = script("stop.py", "-e", environment)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="class")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """One who follows the first tutorial, with this environment as the default one."""
    shell = tmp_path_factory.mktemp("tutorial")
    address = [(r"127\.0\.0\.1:7000", "127.0.0.1:17000")]
    return Walk(chapters()[1], shell, {"OMNIKIT_ENVIRONMENT": PD}, address, limit_s=1500)


@pytest.mark.usefixtures("stopped_after")
class TestDisaggregated:
    """2P1D from nothing to nothing."""

    def test_the_first_tutorial_deploys_asks_looks_and_deploys_again(self, walk: Walk) -> None:
        walk.run(until="make stop")

    def test_the_printed_curl_line_works_when_pasted(self) -> None:
        config = config_config.load(PD)
        line = smoke_test.curl_line(make_plan(config), config.settings)
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
        assert json.loads(done.stdout)["choices"][0]["text"]

    def test_a_profile_restarts_and_restores_and_has_real_steps(self, tmp_path: Path) -> None:
        before = pids(PD)
        words = ["--instance", "p0", "--instance", "d0", "--steps", "4", "--yes"]
        done = script("profile_serving.py", "-e", PD, *words, "--out", str(tmp_path), "--json")
        assert done.returncode == 0, done.stderr + done.stdout
        found = json.loads(done.stdout)
        assert found["faults"] == found["notes"] == []
        for role in ("prefill", "decode"):
            sums = found["roles"][role]
            assert sums["step_count"] == 4 and 0 < sums["gap_share"] < 1
            names = [one["name"] for one in sums["operators"]]
            assert "_C::cpu_attention_with_kv_cache" in names, names
        [prefill, decode] = [i["traces"][0]["steps"] for i in found["instances"]]
        # vLLM names a step execute_context_<requests>(<tokens>)_generation_<requests>(<tokens>).
        # A request that arrives while decode is recorded has its last prompt token computed there.
        counts = {
            role: [[int(n) for n in re.findall(r"\d+", step["name"])] for step in steps]
            for role, steps in (("prefill", prefill), ("decode", decode))
        }
        assert all(n >= 1 and t > 100 * n and g == 0 for n, t, g, _ in counts["prefill"]), counts
        assert all(t == n for n, t, _, _ in counts["decode"]), counts
        assert any(g >= 1 for _, _, g, _ in counts["decode"]), counts
        after = pids(PD)
        assert {name for name in before if before[name] != after[name]} == {"p0", "d0"}
        assert status(PD)["ok"]

    def test_second_deploy_changes_nothing(self) -> None:
        before = pids(PD)
        done = script("deploy.py", "-e", PD, "--json")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout.splitlines()[-1])
        assert result["changed"] == {}
        assert "nothing to change" in done.stderr
        assert pids(PD) == before

    def test_plan_says_that_nothing_would_change(self) -> None:
        done = script("plan.py", "-e", PD, "--json")
        changes = json.loads(done.stdout)["changes"]["local"]
        assert set(changes["nodes"].values()) == {"unchanged"}
        assert changes["files"] == {}

    def test_plan_shows_what_another_setting_would_restart(self) -> None:
        extra = ["--set", "roles.decode.server.args.max-num-seqs=8", "--json"]
        done = script("plan.py", "-e", PD, *extra)
        nodes = json.loads(done.stdout)["changes"]["local"]["nodes"]
        assert nodes == {"p0": "unchanged", "p1": "unchanged", "d0": "restart", "c0": "unchanged"}

    def test_status_shows_every_server(self) -> None:
        found = status(PD)
        assert found["ok"]
        servers = {s["name"]: (n["role"], s) for n in found["nodes"] for s in n["servers"]}
        assert {name: role for name, (role, _) in servers.items()} == {
            "p0": "prefill",
            "p1": "prefill",
            "d0": "decode",
            "c0": "proxy",
        }
        assert servers["p1"][1]["port"] == 19001
        assert servers["d0"][1]["uptime_s"] > 0
        for key in ("running", "waiting", "kv_usage"):
            assert servers["d0"][1][key] is not None
        for key in ("answered", "generated", "first_token_s", "first_tokens"):  # what watch counts
            assert servers["d0"][1][key] > 0, key
        table = script("status.py", "-e", PD)
        assert "d0" in table.stdout and "answered" in table.stdout

    def test_a_server_takes_the_memory_that_init_reckons_with(self) -> None:
        settings = config_config.load(PD).settings
        cache = int(settings.server.args["kv-cache-memory-bytes"])  # type: ignore[call-overload]
        reckoned = settings.engine.memory_per_server_mib + cache / 2**20
        running = pids(PD)
        assert sorted(running) == ["c0", "d0", "p0", "p1"]
        del running["c0"]  # the proxy
        for name, pid in running.items():
            taken = 0.0  # by the server and the engine that it started
            for one in records.survivors(records.identity(pid)):
                shares = Path(f"/proc/{one}/smaps_rollup").read_text()
                taken += sum(int(kib) for kib in re.findall(r"(?m)^Pss:\s+(\d+) kB", shares)) / 1024
            assert 0.4 * reckoned < taken < reckoned, name

    def test_smoke_test_passes(self) -> None:
        done = script("smoke_test.py", "-e", PD, "--json")
        checks = {check["name"]: check["passed"] for check in json.loads(done.stdout)}
        assert checks == {
            "models": True,
            "completion": True,
            "KV hand-over": True,
            "chat completion": True,
            "streamed completion": True,
            "several prompts": True,
        }

    def test_logs_show_lines_of_the_chosen_instance(self) -> None:
        done = script("logs.py", "-e", PD, "--instance", "p0", "--lines", "400")
        assert done.returncode == 0
        assert "kv_producer" in done.stdout

    def test_kv_is_handed_over_and_text_equals_a_colocated_server(self) -> None:
        done = script("deploy.py", "-e", SINGLE)
        assert done.returncode == 0, done.stderr
        config = config_config.load(PD)
        plan = make_plan(config)
        texts = []
        for prompt in PROMPTS:
            alone = complete("http://127.0.0.1:18300", prompt)
            before = smoke_test.kv_counters(plan, config.settings)
            handed_over = complete("http://127.0.0.1:17000", prompt)
            after = smoke_test.kv_counters(plan, config.settings)
            tokens = handed_over["usage"]["prompt_tokens"]
            assert smoke_test.judge_kv(before, after, tokens).passed
            assert handed_over["choices"][0]["text"] == alone["choices"][0]["text"]
            texts.append(handed_over["choices"][0]["text"])
        assert len(set(texts)) == len(PROMPTS)
        done = script("stop.py", "-e", SINGLE, "--json")
        assert json.loads(done.stdout) == {"s0": "stopped"}

    def test_a_forgotten_hand_over_is_noticed(self) -> None:
        """The same check fails for a request that decode computes itself: it can fail."""
        config = config_config.load(PD)
        plan = make_plan(config)
        before = smoke_test.kv_counters(plan, config.settings)
        answer = complete("http://127.0.0.1:19100", PROMPTS[0])
        after = smoke_test.kv_counters(plan, config.settings)
        check = smoke_test.judge_kv(before, after, answer["usage"]["prompt_tokens"])
        assert not check.passed
        assert "0 of" in check.found

    def test_kv_of_another_prompt_changes_the_text(self) -> None:
        """Decode really uses what it is handed: wrong KV shows in the text."""
        mine, other = "a" * 200, "b" * 200
        asked = {"do_remote_decode": True, "do_remote_prefill": False}
        for key in ("remote_engine_id", "remote_block_ids", "remote_host", "remote_port"):
            asked[key] = None  # type: ignore[assignment]
        wrong = complete("http://127.0.0.1:19000", other, max_tokens=1, kv_transfer_params=asked)[
            "kv_transfer_params"
        ]
        right = complete("http://127.0.0.1:17000", mine)["choices"][0]["text"]
        mixed = complete("http://127.0.0.1:19100", mine, kv_transfer_params=wrong)
        assert mixed["choices"][0]["text"] != right

    def test_both_prefill_servers_take_part(self) -> None:
        def computed() -> list[float]:
            return [counted(port, "vllm:prompt_tokens_total") for port in (19000, 19001)]

        before = computed()
        for number in range(6):
            complete("http://127.0.0.1:17000", f"request {number}")
        assert all(now > then for now, then in zip(computed(), before))

    def test_a_load_comes_from_the_generator_of_vllm_0_9_sent_as_text(self, loads: Path) -> None:
        """omni-infer's release, and the way to a host or container that has no such file."""
        config = config_config.load(PD, (), ["benchmark.generator=vllm-0.9"])
        target = targets.find(config, make_plan(config))
        place = Place("vLLM 0.9", (str(vllm_parser.install()), "-"), ENV, DRIVER)
        began = datetime.now()
        into = measurement.folder(config, loads / "old", began)
        result = measurement.measure(config, target, a_load(input_tokens=32), place, into, began)
        assert ok(result), result["runs"]
        assert [run["output_tokens"] for run in result["runs"]] == [24, 24]

    def test_a_load_is_measured_compared_and_seen_by_prometheus(
        self, loads: Path, tmp_path: Path
    ) -> None:
        every_second = ["--set", "monitoring.scrape_interval_s=1"]
        done = script("metrics.py", "-e", PD, *every_second, "--out", str(tmp_path))
        assert done.returncode == 0, done.stderr
        before = counted(19100, "vllm:generation_tokens_total")
        (old,) = (loads / "old").iterdir()
        words = ["--concurrency", "1,4", "--requests", "12", "--input", "32", "--output", "16"]
        words += ["--warmups", "0", "--compare", str(old), "--out", str(loads / "new")]
        with prometheus(tmp_path / "prometheus.yml", tmp_path) as reading:
            done = script("benchmark_serving.py", "-e", PD, *words)
            assert done.returncode == 0, done.stderr
            assert counted(19100, "vllm:generation_tokens_total") - before == 2 * 12 * 16
            total = 'vllm:generation_tokens_total{environment="pd",role="decode"}'
            assert wait_until(lambda: reading.values(total) == [before + 2 * 12 * 16], 30, 0.2)
            assert reading.health() == dict.fromkeys(("p0", "p1", "d0", "c0"), "up")
            board = json.loads((tmp_path / "dashboard.json").read_text())
            empty = []
            for asked in files.queries(board):
                plain = asked.replace("$role", ".*").replace("$instance", ".*")
                if not reading.values(plain.replace("$__rate_interval", "5m")):
                    empty.append(asked)
        assert empty == []
        (new,) = (loads / "new").iterdir()
        runs = json.loads((new / "result.json").read_text())["runs"]
        assert [(run["completed"], run["failed"], run["short"]) for run in runs] == [(12, 0, 0)] * 2
        assert all(0 < run["ttft_ms"]["p50"] <= run["e2el_ms"]["p99"] for run in runs)
        assert "difference" in done.stdout and "not the same load: output tokens" in done.stdout
        assert (new / "latency.png").stat().st_size > 10_000

    def test_a_dead_prefill_server_is_skipped_reported_and_mended_alone(self, loads: Path) -> None:
        before = pids(PD)
        words = ["scripts/benchmark_serving.py", "-e", PD, "--instance", "p0", "--warmups", "0"]
        words += ["--concurrency", "4", "--output", "1000", "--out", str(loads / "dead")]
        with subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as loading:
            running = "vllm:num_requests_running"
            assert wait_until(
                lambda: counted(19000, running) > 0 or loading.poll() is not None, 120, 0.1
            )
            os.killpg(before["p0"], signal.SIGKILL)
            said = loading.communicate(timeout=120)[0]
        assert loading.returncode == 1, said
        (dead,) = (loads / "dead").iterdir()
        (run,) = json.loads((dead / "result.json").read_text())["runs"]
        assert run["failed"] == sum(run["errors"].values()) > 0, said
        assert any("ConnectorError" in kind for kind in run["errors"])
        assert f"generator's words: {dead}" in said
        assert wait_until(lambda: not status(PD)["ok"], 30, 0.2)
        found = status(PD)
        states = {s["name"]: s["state"] for n in found["nodes"] for s in n["servers"]}
        assert states == {"p0": "failed", "p1": "ready", "d0": "ready", "c0": "ready"}
        for number in range(4):
            assert complete("http://127.0.0.1:17000", f"still there {number}")
        done = script("deploy.py", "-e", PD, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["changed"].keys() == {"p0"}
        after = pids(PD)
        assert after["p0"] != before["p0"]
        assert {n: after[n] for n in ("p1", "d0", "c0")} == {
            n: before[n] for n in ("p1", "d0", "c0")
        }

    def test_the_first_tutorial_ends_with_a_stop_that_leaves_nothing_behind(
        self, walk: Walk
    ) -> None:
        temp_dir = make_plan(config_config.load(PD)).hosts[0].temp_dir
        walk.run()
        assert leftovers(ROOT / "build/test-pd") == []
        assert not Path(temp_dir).exists()
        for port in (17000, 19000, 19001, 19100, 15600):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        again = script("stop.py", "-e", PD)
        assert "nothing to stop" in again.stdout
        assert script("status.py", "-e", PD).returncode == 1

    def test_stop_while_a_start_is_under_way(self) -> None:
        with subprocess.Popen(
            [sys.executable, "scripts/deploy.py", "-e", PD],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as deploying:
            state = ROOT / "build/test-pd/state/d0.json"
            assert wait_until(lambda: state.exists() or deploying.poll() is not None, 60, 0.05)
            second = script("deploy.py", "-e", PD)
            assert second.returncode == 1
            assert f"pid {deploying.pid}" in second.stderr
            done = script("stop.py", "-e", PD)
            assert done.returncode == 0, done.stderr
            assert deploying.wait(60) != 0
        assert leftovers(ROOT / "build/test-pd") == []
        assert records.recorded_nodes(ROOT / "build/test-pd/state") == []


@pytest.mark.usefixtures("stopped_after")
class TestFailures:
    """Starts that fail say why and leave nothing behind."""

    def fails(self, *words: str, code: int) -> str:
        done = script("deploy.py", "-e", SINGLE, *words)
        assert done.returncode == code, done.stderr
        assert not any(line.startswith("Traceback") for line in done.stderr.splitlines())
        assert leftovers(ROOT / "build/test-single") == []
        return done.stderr

    def test_a_bad_flag_shows_the_engines_words_and_the_cause(self) -> None:
        said = self.fails("--set", "server.args.no-such-flag=true", code=1)
        assert "--no-such-flag" in said
        assert "does not accept one of its flags" in said
        assert "stopping what this run started" in said

    def test_a_deadline_is_kept(self) -> None:
        began = time.monotonic()
        said = self.fails("--set", "readiness.deadline_s=3", code=1)
        assert "not ready within 3 s" in said
        assert time.monotonic() - began < 60

    def test_a_taken_port_names_the_process_and_changes_nothing(self) -> None:
        with socket.create_server(("127.0.0.1", 18300)):
            said = self.fails(code=2)
        assert f"pid {os.getpid()}" in said
        assert "18300" in said

    def test_too_little_memory_is_said_before_anything_starts(self) -> None:
        said = self.fails("--set", "engine.memory_per_server_mib=900000000", code=2)
        assert "MiB of memory" in said

    def test_a_missing_model_folder(self) -> None:
        extra = ["--set", "model.generate_seed=null", "--set", "model.path=/no/such/model"]
        assert "/no/such/model" in self.fails(*extra, code=2)
