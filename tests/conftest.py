"""Fixtures that all tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import hypothesis
import pytest
from docker_host import DockerHost, docker_engine, make_small_image
from omnikit import host_records

# How fast a machine makes examples says nothing about the code.
hypothesis.settings.register_profile(
    "omnikit", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("omnikit")

ROOT = Path(__file__).resolve().parents[1]

# Users' Pythons keep what they compile. Without it each of thousands of scripts compiles all anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what it puts into the background; what we start would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: they tell most of what is wrong in seconds.

    Side by side, the tests of a file stay together, for they share what they start; all that need
    the Docker engine do, so that images are built once.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    docker = {item.path for item in items if "docker_host" in getattr(item, "fixturenames", ())}
    for item in items:
        group = "docker" if item.path in docker else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    """In CI a skipped test is a failure, unless it needs an NPU or a GPU."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and os.environ.get("OMNIKIT_CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's OMNIKIT_ variables must not decide what a test sees; the engine's place may.

    The engine is large: OMNIKIT_ENGINE__VENV lets several clones share one.
    """
    for name in list(os.environ):
        if name.startswith("OMNIKIT_") and not name.startswith("OMNIKIT_ENGINE__"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def engine_python() -> Path:
    """The CPU engine's interpreter; the engine is installed when it is not there yet."""
    script = ROOT / "scripts" / "install_engine.py"
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    # Tests run side by side: one of them installs, the others wait for it.
    with host_records.locked(build / "test-engine.lock", "installing the engine", wait_s=1800):
        subprocess.run([sys.executable, script, *_engine_options()], check=True, cwd=ROOT)
    return engine_venv() / "bin" / "python"


def engine_venv() -> Path:
    """Where the engine is or will be."""
    return ROOT / os.environ.get("OMNIKIT_ENGINE__VENV", "build/engine-cpu")


def _engine_options() -> list[str]:
    return ["--venv", str(engine_venv())]


@pytest.fixture(scope="session")
def docker_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerHost]:
    """A real Docker engine with a small image (docker_host.BASE_IMAGE), for the whole run."""
    with docker_engine(tmp_path_factory.mktemp("docker")) as host:
        make_small_image(host)
        yield host
