"""Containers of a host, with a real Docker engine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest
from container_cases import small_spec
from docker_host import BASE_IMAGE, DockerHost, small_root
from needs import needs
from platform_cases import OTHER, OWN, load_for

from hostkit.base.errors import ActionError, InputError
from hostkit.containers import containers as containers_containers
from omnikit.config import config
from omnikit.plan import containers as plan_containers

GUIDE = """
docker run --name NAME -it -d --shm-size=500g --network=host --privileged=true -u root -w /home
--device=/dev/davinci_manager --device=/dev/hisi_hdc --device=/dev/devmm_svm --entrypoint=bash
-v /usr/local/Ascend/driver:/usr/local/Ascend/driver -v /usr/local/dcmi:/usr/local/dcmi
-v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi
-v /etc/ascend_install.info:/etc/ascend_install.info -v /usr/local/sbin:/usr/local/sbin
-v /etc/hccn.conf:/etc/hccn.conf -v /usr/bin/hccn_tool:/usr/bin/hccn_tool -v /home:/home
-v /data:/data -v /tmp:/tmp -v /usr/share/zoneinfo/Asia/Shanghai:/etc/localtime
"""


def guide_spec(**changes: Any) -> dict[str, Any]:
    settings = config.load("qwen2.5", environ={}).settings
    spec = plan_containers.spec(settings, name="NAME", owner="o", image="IMAGE", folders=())
    return {**spec, **changes}


def test_the_guides_flags_are_the_defaults() -> None:
    words = containers_containers.create_words(guide_spec())
    ours = [w for i, w in enumerate(words[:-1]) if "--label" not in (w, words[i - 1])]
    assert ["docker", *ours] == GUIDE.split()
    assert words[-1] == "IMAGE"


def test_every_setting_becomes_a_word() -> None:
    changed = guide_spec(
        shm_size="1g", network="none", privileged=False, user="7:8", workdir="/x", init=True,
        entrypoint="sh", interactive=False, devices=["/dev/x"], mounts=["/a:/b:ro"],
        env={"A": "b c"}, args=["--ulimit=nofile=1:1"],
    )  # fmt: skip
    words = containers_containers.create_words(changed)
    for word in ("--shm-size=1g", "--network=none", "7:8", "/x", "--init", "--entrypoint=sh"):
        assert word in words
    for word in ("--device=/dev/x", "/a:/b:ro", "A=b c", "--ulimit=nofile=1:1"):
        assert word in words
    assert "-it" not in words and "--privileged=true" not in words


def test_without_a_user_it_is_ours_with_a_home() -> None:
    words = containers_containers.create_words(guide_spec(user=None))
    assert words[words.index("-u") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert "HOME=/tmp" in words


@pytest.fixture
def engine(docker_host: DockerHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerHost]:
    """The engine as the code finds it, without containers before and after."""
    for name, value in docker_host.env.items():
        monkeypatch.setenv(name, value)
    yield docker_host
    names = docker_host.docker("ps", "-aq").stdout.split()
    if names:
        docker_host.docker("rm", "--force", *names)


def ensure(spec: dict[str, Any], replace: bool = False) -> dict[str, Any]:
    return containers_containers.ensure({"spec": spec, "replace": replace})


@pytest.mark.slow
def test_started_once_then_unchanged_then_started_again_after_a_stop(engine: DockerHost) -> None:
    spec = small_spec("t-one", env={"GREETING": "a 'b' $(c)"})
    assert ensure(spec)["action"] == "started"
    before = engine.docker("inspect", "t-one").stdout
    assert ensure(spec) == {
        "name": "t-one", "differences": [], "action": "unchanged", "changed": False,
    }  # fmt: skip
    assert engine.docker("inspect", "t-one").stdout == before
    shown = engine.docker("exec", "t-one", "bash", "-c", 'echo "$GREETING"').stdout
    assert shown == "a 'b' $(c)\n"
    assert containers_containers.stop({"spec": spec})["action"] == "stopped"
    assert containers_containers.stop({"spec": spec})["action"] == "unchanged"
    assert ensure(spec)["action"] == "started"
    assert containers_containers.remove({"spec": spec})["action"] == "removed"
    assert containers_containers.remove({"spec": spec})["changed"] is False
    assert engine.docker("ps", "-aq").stdout == ""


@pytest.mark.slow
def test_a_difference_is_named_and_makes_it_anew(engine: DockerHost, tmp_path: Path) -> None:
    spec = small_spec("t-two")
    ensure(spec)
    first = json.loads(engine.docker("inspect", "t-two").stdout)[0]["Id"]
    changed = small_spec("t-two", shm_size="32m", mounts=[f"{tmp_path}:/x"])
    assert containers_containers.look(changed).action == "recreate"
    done = ensure(changed)
    assert done["action"] == "recreated"
    assert done["differences"] == ['shm_size: "16m" -> "32m"', f'mounts: [] -> ["{tmp_path}:/x"]']
    there = json.loads(engine.docker("inspect", "t-two").stdout)[0]
    assert there["Id"] != first
    assert there["HostConfig"]["ShmSize"] == 32 << 20


@pytest.mark.slow
def test_a_tag_that_moved_makes_it_anew(engine: DockerHost) -> None:
    engine.docker("tag", BASE_IMAGE, "t/moving:1")
    spec = small_spec("t-moved", image="t/moving:1")
    ensure(spec)
    engine.docker("commit", "t-moved", "t/moving:1")
    found = containers_containers.look(spec)
    assert found.action == "recreate"
    assert re.match("image t/moving:1: [0-9a-f]{12} -> [0-9a-f]{12}$", found.differences[0])
    assert ensure(spec)["action"] == "recreated"


@pytest.mark.slow
def test_a_container_of_somebody_else_is_left_alone(engine: DockerHost) -> None:
    engine.docker("run", "-d", "-it", "--net=host", "--name", "t-theirs", BASE_IMAGE, "bash")
    before = engine.docker("inspect", "t-theirs").stdout
    spec = small_spec("t-theirs")
    for act in (ensure, lambda s: containers_containers.stop({"spec": s})):
        with pytest.raises(InputError, match="was not made by this toolkit; it is left") as caught:
            act(spec)
        assert "--replace" in str(caught.value.todo)
    assert engine.docker("inspect", "t-theirs").stdout == before
    assert ensure(spec, replace=True)["action"] == "recreated"
    with pytest.raises(InputError, match="belongs to test; it is left alone"):
        ensure(small_spec("t-theirs", owner="another"))
    assert (
        containers_containers.stop({"spec": small_spec("t-theirs", owner=None)})["changed"] is True
    )


@pytest.mark.slow
def test_what_is_missing_is_named_before_anything_starts(engine: DockerHost) -> None:
    spec = small_spec("t-miss", devices=["/dev/davinci_none"], mounts=["/no/such:/x"], image="no:1")
    with pytest.raises(InputError) as caught:
        ensure(spec)
    text = str(caught.value)
    for part in ("image no:1 is not", "no device /dev/davinci_none", "there is no /no/such"):
        assert part in text
    assert "container.mounts" in text and "invoke pull-image" in text
    assert engine.docker("ps", "-aq").stdout == ""
    assert not Path("/no").exists()  # Docker itself would make it


@pytest.mark.slow
def test_the_old_container_stays_when_the_new_one_cannot_be_made(engine: DockerHost) -> None:
    ensure(small_spec("t-keep"))
    with pytest.raises(InputError):
        ensure(small_spec("t-keep", devices=["/dev/davinci_none"]))
    assert containers_containers.look(small_spec("t-keep")).action == "unchanged"


@pytest.mark.slow
def test_one_that_cannot_start_is_not_left_behind(engine: DockerHost) -> None:
    with pytest.raises(ActionError, match="no-such-program"):
        ensure(small_spec("t-half", entrypoint="no-such-program"))
    with pytest.raises(ActionError, match="ended at once"):
        ensure(small_spec("t-half", entrypoint="cat", args=["--label=x=y"], interactive=False))
    assert engine.docker("ps", "-aq").stdout == ""


@pytest.mark.slow
def test_the_created_container_has_the_guides_configuration(engine: DockerHost) -> None:
    """Some machines refuse to run privileged containers: made, not started, it can be inspected."""
    spec = guide_spec(name="t-guide", image=BASE_IMAGE, devices=["/dev/null"])
    words = containers_containers.create_words(spec)
    engine.docker("create", *(word for word in words[1:] if word != "-d"))
    there = json.loads(engine.docker("inspect", "t-guide").stdout)[0]
    of_host, of_config = there["HostConfig"], there["Config"]
    assert of_host["Privileged"] is True
    assert of_host["ShmSize"] == 500 << 30
    assert of_host["NetworkMode"] == "host"
    assert sorted(of_host["Binds"]) == sorted(spec["mounts"])
    assert of_host["Devices"][0]["PathOnHost"] == "/dev/null"
    assert (of_config["User"], of_config["WorkingDir"]) == ("root", "/home")
    assert (of_config["Entrypoint"], of_config["Tty"]) == (["bash"], True)
    assert containers_containers.look(spec).action == "start"


@pytest.mark.slow
def test_a_stopped_daemon_is_named(engine: DockerHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such.sock")
    with pytest.raises(InputError, match="Docker daemon is not running") as caught:
        ensure(small_spec("t-none"))
    assert "systemctl start docker" in str(caught.value.todo)


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Podman whose images and containers are its own; yields an image."""
    needs("podman", root=True)
    storage, settings = tmp_path / "storage.conf", tmp_path / "containers.conf"
    places = f'graphroot = "{tmp_path}/graph"\nrunroot = "{tmp_path}/run"\n'
    storage.write_text(f'[storage]\ndriver = "vfs"\n{places}')
    # Its default limits are more than some machines let anybody have.
    settings.write_text("[containers]\ndefault_ulimits = []\n")
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    monkeypatch.setenv("CONTAINERS_CONF", str(settings))
    archive = small_root(tmp_path / "small.tar")
    subprocess.run(["podman", "import", archive, "localhost/small:1"], check=True)
    yield "localhost/small:1"
    subprocess.run(["podman", "rm", "--all", "--force"], check=True)


@pytest.mark.slow
def test_podman_does_the_same(podman: str) -> None:
    spec = small_spec("t-pod", engine="podman", image=podman)
    assert ensure(spec)["action"] == "started"
    assert ensure(spec)["action"] == "unchanged"
    changed = small_spec("t-pod", engine="podman", image=podman, shm_size="32m")
    assert ensure(changed)["differences"] == ['shm_size: "16m" -> "32m"']
    assert containers_containers.stop({"spec": changed})["action"] == "stopped"
    assert ensure(changed)["action"] == "started"
    assert containers_containers.remove({"spec": changed})["action"] == "removed"
    with pytest.raises(InputError, match="the image no:1 is not on this host"):
        ensure(small_spec("t-pod", engine="podman", image="no:1"))


def test_no_engine_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="docker or podman is not installed"):
        ensure(small_spec("t-none", engine="auto"))


@pytest.mark.slow
def test_processes_in_a_container_are_found_and_ended_from_outside(
    engine: DockerHost, tmp_path: Path
) -> None:
    """What a record says of a process in a container holds outside of it."""
    from hostkit.base import records, run

    spec = small_spec("t-pids", mounts=[f"{tmp_path}:{tmp_path}"])
    ensure(spec)
    log = str(tmp_path / "log")
    Path(log).touch()
    shell = 'read -r pid rest </proc/self/stat; echo "$pid"; exec sleep 300'
    run.run(containers_containers.launch_words(spec, ["bash", "-c", shell], log, "A=b"))
    from docker_host import wait_for

    wait_for(lambda: (tmp_path / "log").read_text().strip().isdigit(), "the pid is written")
    inside = int((tmp_path / "log").read_text())
    init = json.loads(engine.docker("inspect", "t-pids").stdout)[0]["State"]["Pid"]
    pid_ns = records.namespace(str(init))
    assert pid_ns != records.namespace()
    here = next(
        int(pid) for pid in os.listdir("/proc")  # noqa: PTH208 (names only)
        if pid.isdigit() and _innermost(pid) == (pid_ns, inside)
    )  # fmt: skip
    ticks = records.start_ticks(here)
    who = {"pid": inside, "pid_ns": pid_ns, "start_ticks": ticks}
    assert records.pid_here(who) == here != inside
    assert records.pid_here({**who, "start_ticks": ticks + 1}) is None  # type: ignore[operator]
    os.kill(here, signal.SIGTERM)
    wait_for(lambda: records.pid_here(who) is None, "it ended")


def _innermost(pid: str) -> tuple[str, int]:
    from hostkit.base import records

    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return "", 0
    number = next((line.split()[-1] for line in lines if line.startswith("NSpid:")), "0")
    return records.namespace(pid), int(number)


@pytest.mark.slow
def test_an_image_for_others_is_refused_before_a_container_is_made_of_it(
    engine: DockerHost,
) -> None:
    image = load_for(engine, "t/foreign:1", OTHER)
    try:
        with pytest.raises(InputError, match=f"t/foreign:1 is for {OTHER}, docker .* {OWN}"):
            ensure(small_spec("t-foreign", image=image))
        assert engine.docker("ps", "-aq").stdout == ""
    finally:
        engine.docker("rmi", image)
