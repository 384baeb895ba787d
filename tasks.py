"""Invoke tasks: each is the front door to the script of its name, and takes the same options.

`invoke --list` shows them, `invoke --help TASK` the options of one. Every script runs by hand too.
"""

from __future__ import annotations

import sys
from pathlib import Path

from invoke import Context, task

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))

from omnikit.front import doors  # noqa: E402

_PATHS = ["env", f"PYTHONPATH={ROOT / 'scripts'}:{ROOT / 'tests' / 'kit'}"]
BENCHMARKS = ("commands", "proxy", "deploy", "sync", "fleet", "weights")
LONG = (
    "reliability",
    "steady",
    "distribution",
    "prefix",
)  # half an hour and more: only where they are asked for


@task()
def test(c):
    """Run all tests side by side, fast ones first. As root, installs what they need."""
    _test_needs(c)
    _pytest(c, 2, "-m", "not slow", "--budget", "fast_s")
    # Slow ones wait a quarter of their time, for programs that they have started.
    slow = ("-m", "slow", "--dist", "loadgroup", "--left-out-before", "--budget", "slow_s")
    _pytest(c, 3, *slow)


@task()
def test_fast(c):
    """Run the fast tests only, side by side. As root, installs what they need."""
    _test_needs(c, "--fast")
    _pytest(c, 2, "-m", "not slow", "--budget", "fast_s")


def _pytest(c: Context, workers: int, *words: str) -> None:
    pytest = (sys.executable, "-m", "pytest", "-n", str(workers), "--durations", "10")
    doors.run(c, *pytest, *words)


def _test_needs(c: Context, *words: str) -> None:
    script = ROOT / "tests" / "kit" / "install_needs.py"
    doors.run(c, *_PATHS, sys.executable, str(script), *words)


# Only long options: Invoke's own choice of short ones makes -h mean something else than help.
@task(
    auto_shortflags=False,
    help={"only": f"one of {', '.join(BENCHMARKS)} (default: all), or {', '.join(LONG)}"},
)
def bench(c, only=""):
    """Measure what the toolkit itself costs, against baselines in the same run."""
    for name in [only] if only else BENCHMARKS:
        path = ROOT / "benchmarks" / f"bench_{name}.py"
        doors.run(c, *_PATHS, sys.executable, str(path))


# In the order in which a user needs them. A word is a script's name, with aliases behind it.
ns = doors.collection(
    {
        "Deploy": [
            *(
                "init",
                "import_config",
                "config",
                "plan",
                "deploy",
                "serve",
                "smoke_test",
                "verify_serving",
                "stop",
                "restart",
            ),
            *(
                "add_host",
                "remove_host",
                "releases",
                "rollback",
                "roll",
                "roll_prefill",
                "reload_proxy",
            ),
            *("run_docker", "pip_install", "run_server", "run_proxy", "export_ansible"),
        ],
        "Hosts": [
            *("setup_keys", "check_env", "pull_image", "build_image"),
            *("start_container", "stop_container", "remove_container"),
            "bundle",
            *("sync_code", "build_from_source", "build_wheels", "install_wheels", "check_packages"),
            *("build_ranktables gen-ranktable", "check_ranktable"),
            *("install_engine", "install_proxy", "unlock", "clean_up"),
        ],
        "Weights": [
            *("make_tiny_model", "download_weights", "check_checkpoint", "convert_weights"),
            *("verify_weights", "run_msmodelslim", "prepare_checkpoint", "finish_checkpoint"),
            *("distribute_weights", "warm"),
        ],
        "Measure": ["benchmark_serving", "profile_serving profile", "timeline", "metrics"],
        "Inspect": ["status", "watch", "logs", "doctor", "history", "fetch_logs", "report"],
        "Develop": [
            *(test_fast, "lint", test, "docs", bench, "lock_dependencies", "write_sbom"),
            "completion",
        ],
    }
)
