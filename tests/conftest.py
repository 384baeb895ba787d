"""Fixtures that all tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Iterator

import hypothesis
import needs
import outside
import pytest
from docker_host import DockerHost, docker_engine, make_small_image

from hostkit.base import records

# How fast a machine makes examples says nothing about the code.
hypothesis.settings.register_profile(
    "omnikit", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("omnikit")

ROOT = Path(__file__).resolve().parents[1]
BEGAN = time.monotonic()
LEFT_OUT = "omnikit/left-out"  # in pytest's cache
IN_CI = any(os.environ.get(name) not in (None, "", "0", "false") for name in ("OMNIKIT_CI", "CI"))

# Users' Pythons keep what they compile. Without it each of thousands of scripts compiles all anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what it puts into the background; what we start would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is imported; workers get their own place."""
    site = tempfile.TemporaryDirectory(prefix="omnikit-site-")
    outside.keep_out(site.name)
    config.add_cleanup(site.cleanup)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: they tell most of what is wrong in seconds.

    Side by side, the tests of a file stay together, for they share what they start. All that need
    the Docker engine do, so that images are built once, and all with real engines, for two of those
    are too much for this memory; these two groups take longest and come first.
    """
    groups = {}
    for item in items:
        needed = getattr(item, "fixturenames", ())
        for name, rank in (("docker", 0), ("engine", 1)):
            if f"{name}_host" in needed or f"{name}_python" in needed:
                groups[item.path] = min((rank, name), groups.get(item.path, (rank, name)))
    rest = (2, "")
    items.sort(
        key=lambda item: (
            item.get_closest_marker("slow") is not None,
            groups.get(item.path, rest)[0],
        )
    )
    for item in items:
        group = groups.get(item.path, rest)[1] or str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave a test out whose @pytest.mark.needs are not met, before anything is set up for it."""
    needs.fast_test = item.get_closest_marker("slow") is None
    for mark in item.iter_markers("needs"):
        needs.needs(*mark.args, **mark.kwargs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """For make test: its second run ends with what both left out, each has its time."""
    parser.addoption("--left-out-before", action="store_true", help="also of the run before")
    parser.addoption("--budget", help="fail beyond half more than this setting's seconds")
    for name in ("fast_s", "slow_s"):
        parser.addini(name, "seconds that these tests may take on two cores")


@pytest.hookimpl(hookwrapper=True, tryfirst=True)  # the last to speak
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """End with what was left out, and with what brings it."""
    yield
    if hasattr(session.config, "workerinput"):  # one of several processes
        return
    terminal: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if name := session.config.getoption("--budget"):
        took, budget = time.monotonic() - BEGAN, float(session.config.getini(name))
        terminal.line(f"{took:.0f} s of {budget:.0f} s (pyproject.toml: {name})")
        if took > 1.5 * budget and session.exitstatus == 0:
            terminal.line(
                "too slow: see the slowest above; make them faster, or share what they set up"
            )
            session.exitstatus = 1
    skipped = [one for one in terminal.stats.get("skipped", []) if hasattr(one, "missing")]
    left = Counter(" and ".join(one.missing) for one in skipped)
    if cache := getattr(session.config, "cache", None):  # there may be none
        if session.config.getoption("--left-out-before"):
            left.update(cache.get(LEFT_OUT, {}))
        cache.set(LEFT_OUT, left)
    if left:
        terminal.section("left out")
        for names, count in sorted(left.items()):
            terminal.line(f"{count} for want of {names}")
        terminal.line("To have them run too:")
        missing = {name for names in left for name in names.split(" and ")}
        fast = session.config.getoption("markexpr") == "not slow"
        for line in needs.remedy(missing, "make test-fast" if fast else "make test"):
            terminal.line(f"  {line}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    """In CI a skipped test is a failure."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if call.excinfo and hasattr(call.excinfo.value, "missing"):
        report.missing = call.excinfo.value.missing
    if report.skipped and IN_CI and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"


@pytest.fixture(scope="session")
def engine_python() -> Path:
    """The CPU engine's interpreter; the engine is installed when it is not there yet."""
    needs.needs("libnuma")
    script = ROOT / "scripts" / "install_engine.py"
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    # Tests run side by side: one of them installs, the others wait for it.
    with records.locked(build / "test-engine.lock", "installing the engine", wait_s=1800):
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
