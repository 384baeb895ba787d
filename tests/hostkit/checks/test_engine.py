"""The container engine of a host. With a real one where it says slow."""

from __future__ import annotations

import os
import subprocess

import pytest
from check_cases import ids, limits, look, npu_parameters, one, parameters, put
from docker_host import BASE_IMAGE
from platform_cases import OTHER, OWN, answers_as, load_for

from hostkit.checks import engine as checks_engine
from hostkit.checks.engine import devices_of, is_at_least
from hostkit.containers.containers import OWNER


def engine(folder, **more):
    return look(checks_engine.look, parameters(folder, **{"runtime": "docker", **more}))


@pytest.fixture
def here(docker_host, monkeypatch):
    """The checks talk to the tests' own engine."""
    for name, value in docker_host.env.items():
        monkeypatch.setenv(name, value)
    return docker_host


def test_without_containers_no_engine_is_asked_for(tmp_path):
    assert look(checks_engine.look, parameters(tmp_path, mounts=["/none:/x"])).checks == []


@pytest.mark.parametrize(
    ("version", "least", "enough"),
    [
        ("20.10.24+dfsg1", "20.10", True),
        ("28.2.2", "20.10", True),
        ("20.9.1", "20.10", False),
        ("18.09", "20.10", False),
        ("20", "20.10", False),
    ],
)
def test_versions(version, least, enough):
    assert is_at_least(version, least) is enough


def test_an_engine_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    entry = one(engine(tmp_path), "engine.version")
    assert (entry["state"], entry["found"]) == ("failed", "docker is not installed on this host.")
    assert "dnf install docker" in entry["todo"]


@pytest.mark.needs("docker")
@pytest.mark.parametrize("image", ["a/b:1", None])
def test_a_stopped_daemon(tmp_path, monkeypatch, image):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    group = engine(tmp_path, image=image)
    assert ids(group) == ["engine.version"]
    entry = one(group, "engine.version")
    assert entry["found"] == "the Docker daemon is not running on this host."
    assert entry["todo"] == "start it: systemctl start docker"


@pytest.mark.needs("docker")
def test_a_daemon_that_hangs(tmp_path, monkeypatch):
    """A double of docker: a real daemon cannot be made to hang at a given time."""
    program = put(tmp_path, "/bin/docker", "#!/bin/sh\nexec sleep 3600\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    entry = one(engine(tmp_path, checks=limits(timeout_s=0.3)), "engine.version")
    assert entry["state"] == "failed"
    assert entry["found"].startswith("no answer within 0.3 s from: ")
    assert entry["todo"] == "systemctl restart docker"


def test_missing_sources_of_mounts_are_named(tmp_path):
    root = tmp_path / "root"
    put(root, "/etc/hccn.conf", "")
    mounts = ["/etc/hccn.conf:/etc/hccn.conf", "/usr/local/dcmi:/usr/local/dcmi:ro", "/data:/data"]
    entry = one(engine(tmp_path, root=str(root), mounts=mounts), "engine.mounts")
    assert (entry["state"], entry["found"]) == ("failed", "missing: /usr/local/dcmi, /data")
    assert entry["todo"] == (
        "install the NPU driver and its tools, which bring them; mkdir -p /data;"
        " or change container.mounts"
    )
    entry = one(engine(tmp_path, root=str(root), mounts=mounts[:1]), "engine.mounts")
    assert (entry["state"], entry["found"]) == ("ok", "all 1 are there")


@pytest.mark.parametrize(
    ("devices", "env", "found"),
    [
        (["/dev/davinci0", "/dev/davinci_manager"], [], {0}),
        ([], ["ASCEND_VISIBLE_DEVICES=0-2,7"], {0, 1, 2, 7}),
        ([], ["ASCEND_VISIBLE_DEVICES=", "X=3"], set()),
    ],
)
def test_devices_of_a_container(devices, env, found):
    there = {
        "HostConfig": {"Devices": [{"PathOnHost": path} for path in devices] or None},
        "Config": {"Env": env},
    }
    assert devices_of(there) == found


@pytest.mark.slow
def test_a_real_engine_with_the_image(tmp_path, here):
    group = engine(tmp_path, image=BASE_IMAGE)
    assert [(e["id"], e["state"]) for e in group.checks] == [
        ("engine.version", "ok"),
        ("engine.image", "ok"),
    ]
    inspected = here.docker("image", "inspect", "--format", "{{.Id}}", BASE_IMAGE).stdout.strip()
    assert f"sha256:{group.facts['image_id']}" == inspected
    version = here.docker("version", "--format", "{{.Server.Version}}").stdout.strip()
    assert group.facts["engine"] == f"docker {version}"


@pytest.mark.slow
def test_a_real_engine_that_is_too_old_for_the_setting(tmp_path, here):
    entry = one(engine(tmp_path, checks=limits(container_engine="99.1")), "engine.version")
    assert entry["state"] == "failed"
    assert entry["needed"] == "Docker 99.1 or newer (checks.container_engine), or Podman"


@pytest.mark.slow
@pytest.mark.parametrize(("built", "state"), [(False, "failed"), (True, "ok")])
def test_an_image_that_is_not_here_needs_space(tmp_path, here, built, state):
    group = engine(tmp_path, image="no/such:1", image_built=built, image_free_mib=10**9)
    image, space = one(group, "engine.image"), one(group, "engine.space")
    assert (image["state"], image["needed"]) == (state, "no/such:1")
    assert image["todo"] == ("" if built else "invoke pull-image")
    assert (space["state"], space["needed"]) == (
        "failed",
        "at least 1000000000 MiB (image.free_mib)",
    )
    assert space["found"].endswith(f" MiB free at {here.folder}/data")
    assert "image_id" not in group.facts
    assert one(engine(tmp_path, image="no/such:1"), "engine.space")["state"] == "ok"


@pytest.mark.slow
def test_containers_of_others_that_have_planned_devices(tmp_path, here):
    # mknod makes what stands for an NPU: the engine wants a real device file.
    device = tmp_path / "dev" / "davinci3"
    device.parent.mkdir()
    subprocess.run(["mknod", device, "c", "1", "3"], check=True)
    quiet = ["--network=none", "--entrypoint=sleep", BASE_IMAGE, "600"]
    given = f"--device={device}:/dev/davinci3"

    def holders(**more):
        found = npu_parameters(tmp_path, runtime="docker", **more)
        return one(look(checks_engine.look, found), "engine.devices")

    assert holders()["state"] == "ok"
    try:
        here.docker("run", "-d", "--name=stranger", given, *quiet)
        entry = holders()
        assert (entry["state"], entry["required"]) == ("failed", True)
        assert entry["found"] == "stranger has davinci3"
        assert "docker stop NAME" in entry["todo"]
        assert holders(devices=[0, 1])["state"] == "ok"
        here.docker("rm", "--force", "stranger")
        here.docker("run", "-d", "--name=ours", f"--label={OWNER}=1p1d", given, *quiet)
        assert holders()["state"] == "ok"
    finally:
        here.docker("rm", "--force", "stranger", "ours", check=False)


@pytest.mark.slow
def test_a_privileged_container_of_others_is_a_warning(tmp_path, here, monkeypatch):
    """A privileged container cannot start on every machine: one is given the flag in the answer."""
    real = checks_engine.json.loads

    def privileged(text):
        found = real(text)
        for one_container in found:
            one_container["HostConfig"]["Privileged"] = True
        return found

    monkeypatch.setattr(checks_engine.json, "loads", privileged)
    try:
        here.docker(
            *("run", "-d", "--name=stranger", "--network=none", "--entrypoint=sleep"),
            *(BASE_IMAGE, "600"),
        )
        given = npu_parameters(tmp_path, runtime="docker")
        entry = one(look(checks_engine.look, given), "engine.devices")
        assert (entry["state"], entry["required"]) == ("warning", False)
        assert entry["found"] == "stranger is privileged and may use any"
    finally:
        here.docker("rm", "--force", "stranger", check=False)


@pytest.mark.needs("podman", root=True)
@pytest.mark.slow
def test_a_real_podman_of_any_version(tmp_path, monkeypatch):
    storage = put(
        tmp_path,
        "/storage.conf",
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/images"\nrunroot = "{tmp_path}/run"\n',
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    more = {"container_engine": "podman", "image": "localhost/no/such:1"}
    group = engine(tmp_path, checks=limits(container_engine="99.1"), **more)
    assert one(group, "engine.version")["state"] == "ok"
    assert group.facts["engine"].startswith("podman ")
    assert one(group, "engine.image")["state"] == "failed"
    assert one(group, "engine.space")["found"].endswith(f" MiB free at {tmp_path}/images")


@pytest.mark.slow
def test_architectures_that_differ_are_named(tmp_path, here):
    image = load_for(here, "t/foreign:1", OTHER)
    group = engine(tmp_path, image=image, image_platform=OTHER)
    here.docker("rmi", image)
    entry = one(group, "engine.image_arch")
    assert (entry["state"], entry["found"]) == ("failed", OTHER)
    assert entry["needed"] == f"{OWN}, which docker runs here"
    entry = one(group, "engine.arch")
    assert (entry["state"], entry["found"]) == ("failed", f"{OWN} (docker)")
    assert entry["needed"] == f"{OTHER} (image.platform)"


@pytest.mark.slow
def test_an_engine_that_is_not_of_its_host_is_named(tmp_path, here, monkeypatch):
    answers_as(tmp_path / "bin", OTHER)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    entry = one(engine(tmp_path), "engine.arch")
    assert (entry["found"], entry["needed"]) == (f"{OTHER} (docker)", f"{OWN} (the host's own)")
