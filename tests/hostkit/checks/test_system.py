"""Linux, Python, memory, limits and kernel settings of this machine, and of trees of files."""

from __future__ import annotations

import os
import resource
import stat
import sys
import time

import pytest
from check_cases import ids, limits, look, one, parameters, put

from hostkit.checks import system as checks_system
from hostkit.checks.system import size_mib


def system(folder, **more):
    return look(checks_system.look, parameters(folder, **more))


def test_this_machine_is_fit_and_its_facts_are_told(tmp_path):
    group = system(tmp_path)
    assert ids(group) == [
        "system.os",
        "system.arch",
        "system.python",
        "system.memory",
        "system.shm",
        "system.open_files",
    ]
    others = [one for one in group.checks if one["id"] != "system.python"]  # tested below
    assert {entry["state"] for entry in others} == {"ok"}
    assert group.facts["python"] == sys.version.split()[0]
    assert group.facts["kernel"] == os.uname().release
    assert group.facts["arch"] == os.uname().machine
    assert abs(group.facts["clock"] - time.time()) < 60
    assert set(group.facts) == {"clock", "os", "kernel", "arch", "python"}


@pytest.mark.parametrize(("cores", "state"), [(1, "ok"), (1 << 20, "warning")])
def test_cores_that_the_proxy_is_bound_to_are_there_or_named(tmp_path, cores, state):
    found = one(system(tmp_path, proxy_cores=cores), "system.proxy_cores")
    assert found["state"] == state and f"at least {cores} (proxy.start_core" in found["needed"]
    assert ("null" in found["todo"]) == (state == "warning")


def test_the_release_is_read_from_its_file(tmp_path):
    put(tmp_path / "r", "/etc/os-release", 'NAME=x\nPRETTY_NAME="openEuler 22.03 (LTS-SP4)"\n')
    group = system(tmp_path, root=str(tmp_path / "r"))
    assert group.facts["os"] == "openEuler 22.03 (LTS-SP4)"


@pytest.mark.parametrize(
    ("version", "runtime", "state"),
    [
        ((3, 8, 18), "process", "failed"),
        ((3, 8, 18), "docker", "failed"),
        ((3, 9, 0), "process", "ok"),
        ((3, 11, 9), "process", "ok"),
        ((3, 12, 0), "process", "failed"),
        # The engine has its own Python in the image, or in its venv.
        ((3, 13, 0), "docker", "ok"),
        ((3, 13, 0), "process, apart", "ok"),
    ],
)
def test_a_python_that_is_too_old_or_that_the_engine_cannot_use(
    tmp_path, monkeypatch, version, runtime, state
):
    # The tests run under one Python; the check is told another.
    monkeypatch.setattr(sys, "version_info", version)
    where, _, apart = runtime.partition(", ")
    found = one(system(tmp_path, runtime=where, engine_apart=bool(apart)), "system.python")
    needed = "3.9 to 3.11" if runtime == "process" else "3.9 or newer"
    assert (found["state"], found["needed"]) == (state, needed)
    assert ("hosts.p0.python" in found["todo"]) == (state != "ok")


def an_interpreter(folder, answer):
    file = put(folder, "/bin/python", f"#!/bin/sh\n{answer}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


@pytest.mark.parametrize(
    ("answer", "state", "found"),
    [
        (r"""echo '{"python": "3.11.7", "vllm": "0.9.0"}'""", "ok", "Python 3.11.7, vLLM 0.9.0"),
        (r"""echo '{"python": "3.12.1", "vllm": "0.9.0"}'""", "failed", "Python 3.12.1"),
        (r"""echo '{"python": "3.11.7", "vllm": null}'""", "failed", "no vLLM"),
        ("echo broken >&2; exit 3", "failed", "broken"),
        ("echo no JSON", "failed", "Expecting value"),
    ],
)
def test_the_engines_python(tmp_path, answer, state, found):
    """Interpreters with vLLM take minutes to make: the script answers as one would."""
    python = an_interpreter(tmp_path, answer)
    entry = one(system(tmp_path, venv_python=python), "system.engine")
    assert entry["state"] == state
    assert found in entry["found"]


def test_a_real_interpreter_without_vllm_and_none_at_all(tmp_path):
    entry = one(system(tmp_path, venv_python=sys.executable), "system.engine")
    assert entry["found"].startswith(f"Python {sys.version.split()[0]}, ")
    entry = one(system(tmp_path, venv_python=f"{tmp_path}/none/python"), "system.engine")
    assert (entry["state"], entry["todo"][:21]) == ("failed", "invoke install-engine")
    assert "No such file" in entry["found"]


def test_too_little_memory_and_shared_memory_say_how_much(tmp_path):
    wanted = limits(memory_free_mib=10**9, shm_mib=10**9)
    group = system(tmp_path, checks=wanted)
    memory, shm = one(group, "system.memory"), one(group, "system.shm")
    assert memory["state"] == shm["state"] == "failed"
    assert memory["needed"] == "at least 1000000000 MiB (checks.memory_free_mib)"
    assert "MiB available" in memory["found"] and "MiB, " in shm["found"]
    assert shm["todo"] == "mount -o remount,size=1000000000m /dev/shm"


def test_no_dev_shm_at_all(tmp_path):
    entry = one(system(tmp_path, root=str(tmp_path / "empty")), "system.shm")
    assert (entry["state"], entry["found"]) == ("failed", "/dev/shm: No such file or directory")


def test_with_containers_the_limits_of_this_shell_do_not_apply(tmp_path):
    group = system(tmp_path, runtime="docker")
    assert "system.open_files" not in ids(group) and "system.shm" not in ids(group)


def test_shared_memory_of_containers_must_be_memory_that_there_is(tmp_path):
    entry = one(system(tmp_path, runtime="docker", shm_size="500000g"), "system.shm")
    assert (entry["state"], entry["required"]) == ("warning", False)
    assert "container.shm_size is 500000g" in entry["found"]
    assert one(system(tmp_path, runtime="docker", shm_size="64m"), "system.shm")["state"] == "ok"


@pytest.mark.parametrize(
    ("text", "mib"),
    [("500g", 512000), ("64m", 64), ("2GB", 2048), ("1048576", 1), ("", None), ("x", None)],
)
def test_sizes(text, mib):
    assert size_mib(text) == mib


def test_the_limit_of_open_files(tmp_path):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    entry = one(system(tmp_path, checks=limits(open_files=hard)), "system.open_files")
    if entry["state"] == "warning":  # the soft limit is lower
        assert entry["todo"] == f"ulimit -n {hard}"
    entry = one(system(tmp_path, checks=limits(open_files=hard + 1)), "system.open_files")
    assert (entry["state"], entry["required"]) == ("warning", False)
    assert f"nofile {hard + 1}" in entry["todo"]


def test_kernel_settings(tmp_path):
    root = tmp_path / "r"
    put(root, "/proc/sys/net/core/somaxconn", "128\n")
    put(root, "/proc/sys/vm/max_map_count", "262144\n")
    wanted = {"net.core.somaxconn": 1024, "vm.max_map_count": 262144, "vm.nothing": 1}
    group = system(tmp_path, root=str(root), checks=limits(kernel=wanted))
    low = one(group, "kernel.net.core.somaxconn")
    assert (low["state"], low["found"]) == ("warning", "128")
    assert low["todo"].startswith("sysctl -w net.core.somaxconn=1024;")
    assert one(group, "kernel.vm.max_map_count")["state"] == "ok"
    assert one(group, "kernel.vm.nothing")["state"] == "unknown"


def test_a_kernel_setting_of_this_machine(tmp_path):
    group = system(tmp_path, checks=limits(kernel={"kernel.pid_max": 1}))
    assert one(group, "kernel.kernel.pid_max")["state"] == "ok"
