"""An archive to hosts without internet, over real SSH, to real engines."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator

import pytest
from docker_host import BASE_IMAGE, DockerHost, docker_engine, registry, wait_for
from image_cases import forget, image_id, push, use
from needs import needs
from platform_cases import (
    OTHER,
    OWN,
    add_sum,
    answers_as,
    archive_for,
    oci_archive,
    platform_of,
    push_for,
    silent_host,
)
from port_rooms import free_port
from settings_file import FLEET, load

from hostkit.base.errors import InputError
from hostkit.containers import image_archive, images
from omnikit.config import config
from omnikit.images import pull as images_pull
from omnikit.topology.topology import make_plan

IMAGE = "registry.invalid/team/ship:1"


@pytest.fixture
def archive(docker_host: DockerHost, tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """An archive with its check sum; the engine of this process has its image."""
    use(monkeypatch, docker_host)
    docker_host.docker("tag", BASE_IMAGE, IMAGE)
    path = tmp_path / "ship.tar"
    images.save({"image": IMAGE, "engine": "docker", "archive": str(path)})
    yield path
    forget(docker_host, IMAGE)


@pytest.mark.slow
def test_an_archive_is_checked_before_anything_is_shipped(tmp_path, archive: Path) -> None:
    settings = load(tmp_path, FLEET)
    given = images_pull.loading(settings, archive, None)
    assert given["image"] == IMAGE and given["archive"] == str(archive)
    assert images_pull.load_commands(settings, given)[1] == f"docker load --input {archive}"
    with pytest.raises(InputError, match=r"does not hold other:1, found: registry\.invalid"):
        images_pull.loading(settings, archive, "other:1")
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged or cut short"):
        images_pull.loading(settings, archive, None)


@contextmanager
def ssh_host(
    folder: Path, address: str, engine: DockerHost, key: Path, programs: str
) -> Iterator[int]:
    """A real sshd whose logins have an engine of their own, and programs before others; its port.

    The address is one for documentation, given to the loopback interface meanwhile: hosts of one
    environment may not have loopback addresses.
    """
    folder.mkdir()
    Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd wants it
    own = folder / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(own)], check=True)
    port = free_port()
    settings = folder / "sshd_config"
    settings.write_text(
        f"Port {port}\nListenAddress {address}\nHostKey {own}\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {key}.pub\nStrictModes no\nPermitRootLogin yes\n"
        f'SetEnv DOCKER_HOST={engine.socket} "PATH={programs}:{os.environ["PATH"]}"\n'
        f"Subsystem sftp internal-sftp\n"
    )
    # Replaced, not added: one that a killed run of tests left is as good.
    subprocess.run(["ip", "address", "replace", f"{address}/32", "dev", "lo"], check=True)
    with (folder / "sshd.log").open("wb") as log:
        daemon = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", str(settings)], stdout=log, stderr=log
        )
    try:

        def up() -> bool:
            assert daemon.poll() is None, (folder / "sshd.log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex((address, port)) == 0

        wait_for(up, "sshd answers")
        known = key.with_name("known_hosts")
        with known.open("a") as file:
            file.write(f"[{address}]:{port} {own.with_suffix('.pub').read_text()}")
        yield port
    finally:
        subprocess.run(["ip", "address", "delete", f"{address}/32", "dev", "lo"], check=True)
        daemon.terminate()
        daemon.wait(timeout=60)


@pytest.fixture
def fleet_of_two(tmp_path: Path, tmp_path_factory, monkeypatch) -> Iterator[tuple[Path, list]]:
    """An environment with two hosts behind SSH; the file, and the hosts' engines."""
    key = tmp_path / "key"
    needs("ssh")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    known = f"-o UserKnownHostsFile={tmp_path}/known_hosts -o StrictHostKeyChecking=yes"
    monkeypatch.setenv("ANSIBLE_SSH_ARGS", known)
    with ExitStack() as stack:
        engines, lines = [], []
        for number, address in enumerate(("198.51.100.71", "198.51.100.72")):
            engine = stack.enter_context(docker_engine(tmp_path_factory.mktemp("e")))
            folder = tmp_path / f"host{number}"
            programs = str(tmp_path / f"bin{number}")  # a test may put some there
            port = stack.enter_context(ssh_host(folder, address, engine, key, programs))
            lines.append(
                f"  p{number}: {{address: {address}, user: {getpass.getuser()}, port: {port},"
                f" private_key: {key}, python: {sys.executable}}}\n"
            )
            engines.append(engine)
        path = tmp_path / "two.yaml"
        path.write_text(
            "profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}\n"
            f"paths: {{work_dir: {tmp_path}/work}}\n"
            f"image: {{free_mib: 1, delay_s: 0.2, attempts: 2, at_once: 1}}\n"
            "hosts:\n" + "".join(lines) + "topology:\n"
            "  prefill: [{hosts: [p0]}]\n  decode: [{hosts: [p1]}]\n  proxy: p0\n"
        )
        yield path, engines


@pytest.mark.slow
def test_hosts_without_internet_get_the_image(
    fleet_of_two, docker_host: DockerHost, archive: Path, tmp_path: Path, capfd
) -> None:
    path, engines = fleet_of_two
    # One of them has it already: nothing is shipped there.
    engines[1].docker("load", "--input", str(archive))
    settings = config.load(str(path), environ={})
    plan = make_plan(settings)
    given = images_pull.loading(settings, archive, IMAGE)
    done = images_pull.load(settings, plan, ["p0", "p1"], given)
    assert {host: one.error for host, one in done.items()} == {"p0": None, "p1": None}
    assert [done[host].result["action"] for host in ("p0", "p1")] == ["loaded", "unchanged"]
    assert image_id(engines[0], IMAGE) == image_id(docker_host, IMAGE) != ""
    said = capfd.readouterr().err
    assert "to 1 hosts" in said and "host p0: the archive has arrived" in said
    assert "host p1: the archive has arrived" not in said
    assert not list((tmp_path / "work").rglob("ship.tar"))
    again = images_pull.load(settings, plan, ["p0", "p1"], given)
    assert [one.result["action"] for one in again.values()] == ["unchanged", "unchanged"]


@pytest.mark.slow
def test_hosts_pull_and_one_that_cannot_is_named(
    fleet_of_two, docker_host: DockerHost, tmp_path: Path, capfd
) -> None:
    path, engines = fleet_of_two
    with registry(tmp_path / "registry", free_port()) as address:
        image = f"{address}/team/fleet:1"
        push(docker_host, image)
        script = Path(__file__).resolve().parents[3] / "scripts" / "pull_image.py"
        words = [str(script), "--environment", str(path), "--set", f"container.image={image}"]

        def pull() -> subprocess.CompletedProcess[str]:
            return subprocess.run(words, capture_output=True, text=True, env={**os.environ})

        first = pull()
        assert first.returncode == 0, first.stderr
        assert [line[:9] for line in first.stdout.splitlines()] == ["p0: pulle", "p1: pulle"]
        assert all(image_id(engine, image) for engine in engines)
        assert "unchanged" in pull().stdout
        engines[1].docker("rmi", image)
        settings = config.load(str(path), environ={})
        done = images_pull.pull(settings, make_plan(settings), ["p0"], f"{address}/none:1")
        assert "the registry has no such image" in str(done["p0"].error)
    failed = pull()
    assert failed.returncode == 1 and "host p0" not in failed.stderr.split("error:")[1]
    assert "p0: unchanged" in failed.stdout and "could not be pulled in 2 attempts" in failed.stderr


@pytest.mark.slow
def test_each_of_two_architectures_gets_its_own_and_the_wrong_archive_is_not_shipped(
    fleet_of_two, docker_host: DockerHost, archive: Path, tmp_path: Path, capfd
) -> None:
    path, engines = fleet_of_two
    answers_as(tmp_path / "bin1", OTHER)
    settings = config.load(str(path), environ={})
    plan = make_plan(settings)
    with pytest.raises(InputError, match=r"different platforms: linux/amd64 on p\d; linux/a"):
        images_pull.of_hosts(settings, plan, ["p0", "p1"])
    assert images_pull.of_hosts(settings, plan, ["p1"]) == OTHER
    done = images_pull.load(
        settings, plan, ["p0", "p1"], images_pull.loading(settings, archive, IMAGE)
    )
    assert done["p0"].result["action"] == "loaded"
    assert f"holds {IMAGE} for {OWN}, {OTHER} is needed" in str(done["p1"].error)
    assert "host p1: the archive has arrived" not in capfd.readouterr().err
    assert image_id(engines[1], IMAGE) == ""
    with registry(tmp_path / "registry", free_port()) as address:
        image = f"{address}/team/both:1"
        push_for(docker_host, image, OTHER, OWN)
        done = images_pull.pull(settings, plan, ["p0", "p1"], image)
        assert [one.result["action"] for one in done.values()] == ["pulled", "pulled"]
        assert [platform_of(engine, image) for engine in engines] == [OWN, OTHER]
        # An archive for one of them is made here, for what that one is.
        text = path.read_text().partition("topology:")[0]
        (tmp_path / "only.yaml").write_text(f"{text}topology: {{colocated: [{{hosts: [p1]}}]}}\n")
        with pytest.MonkeyPatch.context() as patch:
            use(patch, docker_host)
            only = config.load(str(tmp_path / "only.yaml"), environ={})
            made = images_pull.export(only, image, tmp_path / "p1.tar", make_plan(only))
    assert made["action"] == "saved"
    content = image_archive.content(tmp_path / "p1.tar")
    assert [one.platform for one in content.images] == [OTHER]
    forget(docker_host, image)


@pytest.mark.slow
@pytest.mark.needs("ssh")
def test_hosts_that_say_nothing_decide_nothing(tmp_path) -> None:
    with silent_host(tmp_path) as path:
        settings = config.load(str(path), environ={})
        with pytest.raises(InputError, match="none of the hosts can say") as caught:
            images_pull.export(settings, "a:1", tmp_path / "a.tar", make_plan(settings))
    assert "p0: " in str(caught.value) and "--set image.platform=" in str(caught.value)


def test_an_archive_for_others_than_set_is_refused_here(tmp_path) -> None:
    archive = add_sum(archive_for(tmp_path / "a.tar", IMAGE, "linux/amd64"))
    settings = load(tmp_path, FLEET, ["image.platform=linux/aarch64"])
    with pytest.raises(InputError, match="for linux/amd64, linux/aarch64 is needed"):
        images_pull.loading(settings, archive, IMAGE)
    given = images_pull.loading(load(tmp_path, FLEET), archive, IMAGE)
    assert given["platforms"] == ["linux/amd64"]
    both = add_sum(oci_archive(tmp_path / "b.tar", ["linux/amd64", "linux/arm64"], IMAGE))
    assert images_pull.loading(settings, both, None)["image"] == IMAGE
