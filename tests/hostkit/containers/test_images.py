"""An image pulled, loaded and saved by a real engine from a real registry."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Iterator

import pytest
from docker_host import BASE_IMAGE, DockerHost, docker_engine, registry, wait_for
from image_cases import (
    PASSWORD,
    USER,
    BreakingLine,
    forget,
    image_id,
    locked_registry,
    mount_small_disk,
    parameters,
    push,
    use,
    watched_docker,
)
from platform_cases import OTHER, OWN, archive_for, load_for, platform_of, push_for
from port_rooms import free_port

from hostkit.base.errors import ActionError, InputError
from hostkit.containers import image_archive, images

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def engine(docker_host: DockerHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerHost]:
    """The tests' engine is this process's, and has the images after a test that it had before."""
    use(monkeypatch, docker_host)

    def names() -> set[str]:
        words = ("image", "ls", "--digests", "--format", "{{.Repository}}:{{.Tag}}@{{.Digest}}")
        found = set()
        for line in docker_host.docker(*words).stdout.split():
            name, _, digest = line.partition("@")
            repository = name.rpartition(":")[0]
            found.add(f"{repository}@{digest}" if name.endswith(":<none>") else name)
        return found

    before = names()
    yield docker_host
    forget(docker_host, *(names() - before))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry"), free_port()) as found:
        yield found


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for an engine: the paths of its sockets must be shorter than 108 characters."""
    return tmp_path_factory.mktemp("e")


def test_an_image_is_pulled_once(engine: DockerHost, address: str, capfd) -> None:
    image = f"{address}/team/once:1"
    digest = push(engine, image, layers=1)
    first = images.pull(parameters(image))
    assert first == {
        "changed": True,
        "action": "pulled",
        "image": image,
        "name": image,
        "id": image_id(engine, image),
        "digest": digest,
        "from": image,
        "platform": OWN,
    }
    assert "layers were on this host already" in capfd.readouterr().err
    second = images.pull(parameters(image))
    assert (second["action"], second["changed"]) == ("unchanged", False)
    assert (second["id"], second["digest"]) == (first["id"], digest)


def test_a_tag_that_moved_is_pulled_again(engine: DockerHost, address: str, capfd) -> None:
    image = f"{address}/team/moves:1"
    push(engine, image, layers=1)
    old = images.pull(parameters(image))
    _move_on(engine, image, keep=old["id"])
    new = images.pull(parameters(image))
    assert (new["action"], new["former"]) == ("pulled", old["id"])
    assert new["id"] != old["id"]
    assert f"docker image rm {old['id'][:12]}" in capfd.readouterr().err


def _move_on(engine: DockerHost, image: str, keep: str) -> None:
    """Let a tag of the registry name another image; the engine keeps what it had."""
    source = f"{image.rpartition(':')[0]}-other:1"
    push(engine, source, layers=1)
    engine.docker("pull", source)
    engine.docker("tag", source, image)
    engine.docker("push", image)
    engine.docker("tag", keep, image)
    forget(engine, source)


def test_a_digest_is_looked_for_and_not_asked_for(
    engine: DockerHost, address: str, tmp_path: Path, monkeypatch
) -> None:
    digest = push(engine, f"{address}/team/fixed:1", layers=1)
    image = f"{address}/team/fixed@{digest}"
    first = images.pull(parameters(image))
    assert (first["action"], first["digest"]) == ("pulled", digest)
    words = watched_docker(tmp_path / "bin", monkeypatch)
    assert images.pull(parameters(image, free_mib=10**9))["action"] == "unchanged"
    assert "pull" not in words.read_text()


@pytest.mark.parametrize("name", ["team/none:1", f"team/none@sha256:{'0' * 64}"])
def test_an_image_that_is_not_there_is_asked_for_once(
    address: str, tmp_path: Path, monkeypatch, name: str
) -> None:
    words = watched_docker(tmp_path / "bin", monkeypatch)
    with pytest.raises(ActionError, match="the registry has no such image") as caught:
        images.pull(parameters(f"{address}/{name}"))
    assert words.read_text().count("pull ") == 1
    assert "check name and tag" in str(caught.value) and "manifest unknown" in str(caught.value)


def test_a_registry_that_is_down_is_asked_as_often_as_set(tmp_path: Path, monkeypatch) -> None:
    words = watched_docker(tmp_path / "bin", monkeypatch)
    image = f"127.0.0.1:{free_port()}/team/x:1"
    with pytest.raises(ActionError, match=r"in 3 attempts\.\n.*: the registry cannot be reached"):
        images.pull(parameters(image))
    assert words.read_text().count("pull ") == 3


def test_an_image_that_is_here_stays_when_the_registry_is_down(
    engine: DockerHost, tmp_path: Path, monkeypatch
) -> None:
    image = f"127.0.0.1:{free_port()}/team/kept:1"
    engine.docker("tag", BASE_IMAGE, image)
    words = watched_docker(tmp_path / "bin", monkeypatch)
    result = images.pull(parameters(image))
    assert result["action"] == "unchanged" and "the image that is here stays" in result["note"]
    assert words.read_text().count("pull ") == 1


def test_a_registry_that_says_nothing_is_awaited_as_long_as_told(engine: DockerHost) -> None:
    """It takes connections, and the engine would wait for it, again and again."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/a:1"
        began = time.monotonic()
        with pytest.raises(ActionError, match=r"cannot be reached.*no answer within 0\.5 s"):
            images.pull(parameters(image, attempts=1, answer_s=0.5))
        engine.docker("tag", BASE_IMAGE, image)
        stays = images.pull(parameters(image, answer_s=0.5))
        assert time.monotonic() - began < 10
    assert stays["action"] == "unchanged" and "cannot be reached" in stays["note"]


def test_a_registry_that_lets_nobody_log_in_is_awaited_as_long_as_told(engine: DockerHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/a:1"
        with pytest.raises(ActionError, match=r"no answer within 0\.5 s"):
            images.pull(parameters(image, attempts=1, answer_s=0.5, credentials=f"{USER}:x"))


def test_a_waiting_pull_ends_at_once_when_interrupted(tmp_path: Path) -> None:
    code = "import sys, host_job; host_job.main()"
    program = tmp_path / "host_job.py"
    image = f"127.0.0.1:{free_port()}/team/x:1"
    program.write_text(
        "from hostkit.base import run\nfrom hostkit.containers import images\n"
        f"def main():\n    with run.as_interrupt():\n        images.pull("
        f"{parameters(image, delay_s=300)!r})\n"
    )
    scripts = Path(__file__).resolve().parents[3] / "scripts"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**_environ(), "PYTHONPATH": f"{scripts}:{tmp_path}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stderr is not None
        for line in child.stderr:
            if "attempt 2 of 3 in 300 s" in line:
                break
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=10) != 0
    finally:
        child.kill()
        child.wait()


def _environ() -> dict[str, str]:
    import os

    return dict(os.environ)


# Log-in.


def test_a_log_in_is_used_and_leaves_nothing(
    engine: DockerHost, tmp_path: Path, monkeypatch, capfd
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with locked_registry(tmp_path / "locked") as address:
        image = f"{address}/team/closed:1"
        _push_locked(engine, address, image)
        words = watched_docker(tmp_path / "bin", monkeypatch)
        result = images.pull(parameters(image, credentials=f"{USER}:{PASSWORD}"))
    assert result["action"] == "pulled"
    assert f"login --username {USER} --password-stdin {address}" in words.read_text()
    captured = capfd.readouterr()
    said = words.read_text() + captured.out + captured.err + repr(result)
    assert PASSWORD not in said
    assert list(temporary.iterdir()) == []
    config = engine.folder / "config" / "config.json"
    assert not config.exists() or address not in config.read_text()


def _push_locked(engine: DockerHost, address: str, image: str) -> None:
    words = ("login", "--username", USER, "--password", PASSWORD, address)
    engine.docker(*words)
    push(engine, image, layers=1)
    engine.docker("logout", address)


@pytest.mark.parametrize("credentials", [None, f"{USER}:wrong-word"])
def test_without_the_right_log_in_it_is_refused_at_once(
    engine: DockerHost, tmp_path: Path, monkeypatch, credentials
) -> None:
    with locked_registry(tmp_path / "locked") as address:
        words = watched_docker(tmp_path / "bin", monkeypatch)
        with pytest.raises(ActionError, match="does not let this host have it") as caught:
            images.pull(parameters(f"{address}/team/x:1", credentials=credentials))
    tries = [line for line in words.read_text().splitlines() if line.startswith(("pull", "login"))]
    assert len(tries) == 1
    assert "image.credentials" in str(caught.value) and "wrong-word" not in str(caught.value)


def test_the_users_own_log_in_is_used_when_no_other_is_set(
    engine: DockerHost, tmp_path: Path
) -> None:
    with locked_registry(tmp_path / "locked") as address:
        image = f"{address}/team/own:1"
        _push_locked(engine, address, image)
        engine.docker("login", "--username", USER, "--password", PASSWORD, address)
        try:
            assert images.pull(parameters(image))["action"] == "pulled"
        finally:
            engine.docker("logout", address)


# Mirrors.


def test_a_mirror_is_asked_first_and_its_name_goes(
    engine: DockerHost, address: str, tmp_path: Path, monkeypatch
) -> None:
    push(engine, f"{address}/copies/team/app:1", layers=1)
    image = "registry.invalid/team/app:1"
    words = watched_docker(tmp_path / "bin", monkeypatch)
    result = images.pull(parameters(image, mirrors=[f"{address}/copies"]))
    assert result["action"] == "pulled" and result["from"] == f"{address}/copies/team/app:1"
    assert result["id"] == image_id(engine, image) != ""
    assert image_id(engine, f"{address}/copies/team/app:1") == ""
    assert f"pull {image}" not in words.read_text()
    again = images.pull(parameters(image, mirrors=[f"{address}/copies"]))
    assert again["action"] == "unchanged"


def test_a_mirrors_name_that_was_there_before_stays(engine: DockerHost, address: str) -> None:
    source = f"{address}/copies/team/mine:1"
    push(engine, source, layers=1)
    engine.docker("pull", source)
    images.pull(parameters("registry.invalid/team/mine:1", mirrors=[f"{address}/copies"]))
    assert image_id(engine, source) == image_id(engine, "registry.invalid/team/mine:1")


def test_a_mirror_does_not_see_the_log_in(engine: DockerHost, tmp_path: Path, monkeypatch) -> None:
    with locked_registry(tmp_path / "locked") as address:
        words = watched_docker(tmp_path / "bin", monkeypatch)
        given = parameters(
            f"127.0.0.1:{free_port()}/team/x:1",
            mirrors=[address],
            credentials=f"{USER}:{PASSWORD}",
            attempts=1,
        )
        with pytest.raises(ActionError, match="in 1 attempt"):
            images.pull(given)
    assert f"--password-stdin {address}" not in words.read_text()


@pytest.mark.parametrize("what", ["down", "without it"])
def test_after_a_mirror_the_next_is_asked(
    engine: DockerHost, address: str, tmp_path: Path, what: str, capfd
) -> None:
    image = f"{address}/team/{what.replace(' ', '')}:1"
    push(engine, image, layers=1)
    with registry(tmp_path / "empty", free_port()) as empty:
        mirror = f"127.0.0.1:{free_port()}" if what == "down" else empty
        result = images.pull(parameters(image, mirrors=[mirror]))
    assert (result["action"], result["from"]) == ("pulled", image)
    assert "asking the next registry" in capfd.readouterr().err


def test_a_digest_from_a_mirror_is_that_digest(engine: DockerHost, address: str) -> None:
    digest = push(engine, f"{address}/copies/team/exact:1", layers=1)
    image = f"registry.invalid/team/exact:1@{digest}"
    result = images.pull(parameters(image, mirrors=[f"{address}/copies"]))
    assert (result["action"], result["digest"]) == ("pulled", digest)
    assert image_id(engine, result["name"]) == result["id"]
    assert image_id(engine, "registry.invalid/team/exact:1") == result["id"]
    again = images.pull(parameters(image, mirrors=[f"{address}/copies"]))
    assert again["action"] == "unchanged"


# Faults.


def test_a_line_that_breaks_in_mid_pull_is_taken_up_again(
    engine: DockerHost, address: str, capfd
) -> None:
    name = "team/breaks:1"
    push(engine, f"{address}/{name}", layers=3)
    with BreakingLine(int(address.rpartition(":")[2]), cut_after=10_000_000) as line:
        result = images.pull(parameters(f"127.0.0.1:{line.port}/{name}"))
        assert line.cuts == 1
        # The three layers have 24 MB: what had arrived was not fetched again.
        assert line.passed < 30_000_000
    assert result["action"] == "pulled"
    assert "the connection was cut; the engine goes on where it was" in capfd.readouterr().err


def test_a_pull_that_the_engine_gives_up_is_tried_again(
    engine: DockerHost, address: str, short: Path, monkeypatch, capfd
) -> None:
    name = "team/fails:1"
    push(engine, f"{address}/{name}", layers=2)
    # An engine that gives up after one more try, 5 seconds later: else it takes 75 seconds.
    with docker_engine(short, "--max-download-attempts", "1") as other:
        use(monkeypatch, other)
        to = int(address.rpartition(":")[2])
        with BreakingLine(to, cut_after=5_000_000, heal_s=6) as line:
            result = images.pull(parameters(f"127.0.0.1:{line.port}/{name}", attempts=9))
            assert line.cuts == 1
        assert result["id"] == image_id(other, f"127.0.0.1:{line.port}/{name}") != ""
    assert "attempt 2 of 9 in 0.2 s" in capfd.readouterr().err


def test_a_registry_that_comes_back_is_found(engine: DockerHost, tmp_path: Path, capfd) -> None:
    port = free_port()
    image = f"127.0.0.1:{port}/team/late:1"
    with registry(tmp_path / "late", port):
        push(engine, image, layers=1)
    got: list[dict[str, object]] = []
    worker = threading.Thread(target=lambda: got.append(images.pull(parameters(image, attempts=8))))
    worker.start()
    said = ""

    def refused() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "attempt 2 of 8" in said

    wait_for(refused, "the first attempt fails")
    with registry(tmp_path / "late", port):
        worker.join(timeout=60)
    assert got and got[0]["action"] == "pulled"


def test_too_little_space_is_said_before_anything_is_asked(
    engine: DockerHost, address: str, tmp_path: Path, monkeypatch
) -> None:
    words = watched_docker(tmp_path / "bin", monkeypatch)
    with pytest.raises(InputError, match=r"too little space .* MiB free") as caught:
        images.pull(parameters(f"{address}/team/large:1", free_mib=10**9))
    assert str(engine.folder / "data") in str(caught.value)
    assert "image.free_mib" in str(caught.value) and "pull " not in words.read_text()


def test_space_is_looked_at_only_when_something_comes(engine: DockerHost, address: str) -> None:
    name = "team/space:1"
    push(engine, f"{address}/{name}", layers=1)
    with BreakingLine(int(address.rpartition(":")[2])) as line:
        image = f"127.0.0.1:{line.port}/{name}"
        old = images.pull(parameters(image))
        assert images.pull(parameters(image, free_mib=10**9))["action"] == "unchanged"
        _move_on(engine, f"{address}/{name}", keep=old["id"])
        line.hold(after=1_000_000)  # else its 8 MB may be here before the engine has stopped
        with pytest.raises(InputError, match="too little space"):
            images.pull(parameters(image, free_mib=10**9))
        assert image_id(engine, image) == old["id"]


def test_what_came_before_the_engine_could_be_stopped_is_there(
    engine: DockerHost, address: str, tmp_path: Path, monkeypatch, capfd
) -> None:
    image = f"{address}/team/quick:1"
    push(engine, image, layers=1)
    old = images.pull(parameters(image))
    _move_on(engine, image, keep=old["id"])
    words = watched_docker(tmp_path / "bin", monkeypatch)
    docker = words.with_name("docker")
    # Nobody stops this one: in a session of its own it does not hear that it shall end.
    held = docker.read_text().replace("exec ", "trap '' TERM\nsetsid --wait ")
    docker.write_text(held)
    new = images.pull(parameters(image, free_mib=10**9))
    assert (new["action"], new["former"]) == ("pulled", old["id"])
    assert new["id"] == image_id(engine, image) != old["id"]
    said = capfd.readouterr().err
    assert f"{image} came before the engine could be stopped. too little space" in said


def test_a_full_disk_is_named_and_left_clean(
    engine: DockerHost, address: str, tmp_path: Path, short: Path, monkeypatch
) -> None:
    image = f"{address}/team/toolarge:1"
    push(engine, image, layers=4)
    engine.docker("pull", image)
    archive = tmp_path / "large.tar"
    engine.docker("save", "--output", str(archive), image)
    disk = short / "d"
    mount_small_disk(disk, 24)
    try:
        with docker_engine(disk / "e") as small:
            use(monkeypatch, small)
            with pytest.raises(ActionError, match="no space is left on the disk") as caught:
                images.pull(parameters(image))
            text = str(caught.value)
            assert str(disk / "e" / "data") in text and "MiB are free" in text
            assert "the engine has removed what it had fetched of it" in text
            given = _loading(archive, image)
            with pytest.raises(ActionError, match="no space is left on the disk"):
                images.load(given)
            assert small.docker("image", "ls", "-aq").stdout == ""
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_engine_that_is_stopped_is_said(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    for job in (images.pull, images.load):
        with pytest.raises(InputError, match="the Docker daemon is not running"):
            job({**parameters("a/b:1"), "ids": [], "platforms": [], "archive": "none"})


# Archives.


def _loading(archive: Path, image: str, **more: object) -> dict[str, object]:
    content = image_archive.content(archive)
    return {
        "image": image,
        "engine": "docker",
        "archive": str(archive),
        "sha256": image_archive.checksum(archive),
        "ids": list(content.ids),
        "platforms": [one.platform for one in content.images],
        "free_mib": 1,
        **more,
    }


@pytest.fixture
def saved(engine: DockerHost, tmp_path: Path) -> tuple[str, Path]:
    image = "registry.invalid/team/saved:1"
    engine.docker("tag", BASE_IMAGE, image)
    archive = tmp_path / "saved.tar"
    given = {"image": image, "engine": "docker", "archive": str(archive)}
    assert images.save(given)["action"] == "saved"
    assert images.save(given)["action"] == "unchanged"
    return image, archive


def test_an_archive_arrives_on_another_host(
    saved: tuple[str, Path], short: Path, monkeypatch
) -> None:
    image, archive = saved
    assert sorted(path.name for path in archive.parent.glob("*saved*")) == [
        "saved.tar",
        "saved.tar.sha256",
    ]
    subprocess.run(["sha256sum", "-c", "saved.tar.sha256"], cwd=archive.parent, check=True)
    with docker_engine(short) as other:
        use(monkeypatch, other)
        look = images.load(_loading(archive, image, only_look=True))
        assert look == {"changed": False, "action": "missing", "image": image}
        first = images.load(_loading(archive, image))
        assert (first["action"], first["id"]) == ("loaded", image_id(other, image))
        second = images.load(_loading(archive, image, remove=True))
        assert second["action"] == "unchanged" and not archive.exists()


def test_an_archive_that_is_cut_short_is_not_loaded(
    engine: DockerHost, saved: tuple[str, Path], tmp_path: Path, monkeypatch
) -> None:
    image, archive = saved
    given = _loading(archive, image)
    archive.write_bytes(archive.read_bytes()[:-5000])
    forget(engine, image)
    words = watched_docker(tmp_path / "bin", monkeypatch)
    with pytest.raises(InputError, match="damaged or cut short"):
        images.load(given)
    assert "load " not in words.read_text()


def test_an_archive_with_something_else_is_an_error(
    engine: DockerHost, saved: tuple[str, Path]
) -> None:
    image, archive = saved
    forget(engine, image)
    with pytest.raises(ActionError, match="is not what it holds"):
        images.load({**_loading(archive, image), "ids": ["f" * 64]})


def test_a_changed_image_is_saved_again(engine: DockerHost, saved: tuple[str, Path]) -> None:
    image, archive = saved
    made = engine.docker("create", image, "/bin/bash").stdout.strip()
    new = engine.docker("commit", made, image).stdout.strip()
    engine.docker("rm", made)
    result = images.save({"image": image, "engine": "docker", "archive": str(archive)})
    assert (result["action"], f"sha256:{result['id']}") == ("saved", new)
    assert image_archive.content(archive).ids == (result["id"],)


def test_an_archive_needs_space_and_an_image(engine: DockerHost, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    mount_small_disk(disk, 1)
    try:
        given = {"image": BASE_IMAGE, "engine": "docker", "archive": str(disk / "x.tar")}
        with pytest.raises(InputError, match="too little space"):
            images.save(given)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    with pytest.raises(InputError, match="is not on this host"):
        images.save({**given, "image": "no/such:1"})


# Platforms.


def test_of_an_index_the_image_for_this_host_is_pulled(engine: DockerHost, address: str) -> None:
    image = f"{address}/team/both:1"
    push_for(engine, image, OTHER, OWN)
    first = images.pull(parameters(image))
    assert (first["action"], platform_of(engine, image)) == ("pulled", OWN)
    assert images.pull(parameters(image))["action"] == "unchanged"
    # Named otherwise and not to run here, as for an archive for other hosts.
    wanted = {"platform": OTHER, "elsewhere": True}
    other = images.pull(parameters(image, **wanted))
    assert (other["action"], other["former"]) == ("pulled", first["id"])
    assert platform_of(engine, image) == OTHER


def test_an_image_for_others_is_refused_by_name_and_does_not_stay(
    engine: DockerHost, address: str
) -> None:
    image = f"{address}/team/foreign:1"
    push_for(engine, image, OTHER)
    with pytest.raises(ActionError, match=f"only for {OTHER}, {OWN} is needed") as caught:
        images.pull(parameters(image))
    assert image in str(caught.value) and "container.image" in str(caught.value)
    assert image_id(engine, image) == ""
    push_for(engine, f"{image}2", OTHER, "linux/s390x")
    with pytest.raises(ActionError, match=f"has this image, but not for {OWN}"):
        images.pull(parameters(f"{image}2"))


def test_what_had_the_name_keeps_it_when_the_registrys_is_for_others(
    engine: DockerHost, address: str
) -> None:
    image = f"{address}/team/turned:1"
    push(engine, image, layers=1)
    old = images.pull(parameters(image))
    engine.docker("tag", image, "omnikit-test/kept:1")
    push_for(engine, image, OTHER)  # which takes the name away here, too
    engine.docker("tag", "omnikit-test/kept:1", image)
    with pytest.raises(ActionError, match=f"only for {OTHER}"):
        images.pull(parameters(image))
    assert image_id(engine, image) == old["id"]
    assert "<none>" not in engine.docker("image", "ls", "--all").stdout


def test_a_mirror_with_an_image_for_others_is_passed_over(
    engine: DockerHost, address: str, capfd
) -> None:
    image = f"{address}/team/mirrored:1"
    push(engine, image, layers=1)
    push_for(engine, f"{address}/copies/team/mirrored:1", OTHER)
    result = images.pull(parameters(image, mirrors=[f"{address}/copies"]))
    assert (result["from"], platform_of(engine, image)) == (image, OWN)
    assert f"only for {OTHER}" in capfd.readouterr().err
    assert image_id(engine, f"{address}/copies/team/mirrored:1") == ""


def test_an_image_that_is_here_for_others_is_not_taken_for_there(
    engine: DockerHost, address: str, capfd
) -> None:
    image = f"{address}/team/wrong:1"
    push(engine, image, layers=1)
    load_for(engine, image, OTHER)
    result = images.pull(parameters(image, if_missing=True))
    assert (result["action"], platform_of(engine, image)) == ("pulled", OWN)
    assert f"is here for {OTHER}, {OWN} is needed" in capfd.readouterr().err


def test_a_setting_that_is_not_this_hosts_is_refused(engine: DockerHost, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"runs images for {OWN}, found {OTHER} \(image.plat"):
        images.pull(parameters("registry.invalid/a:1", platform=OTHER))
    assert images.platform({"engine": "docker"}) == {"changed": False, "platform": OWN}


def test_an_archive_for_others_is_neither_loaded_nor_written(
    engine: DockerHost, tmp_path: Path, monkeypatch
) -> None:
    image = "registry.invalid/team/foreign:1"
    archive = archive_for(tmp_path / "foreign.tar", image, OTHER)
    words = watched_docker(tmp_path / "bin", monkeypatch)
    for only_look in (True, False):
        with pytest.raises(InputError, match=f"holds {image} for {OTHER}, {OWN} is needed"):
            images.load(_loading(archive, image, only_look=only_look))
    assert "load " not in words.read_text()
    given = _loading(archive, image, platform=OTHER, elsewhere=True)
    assert images.load(given)["action"] == "loaded"
    given = {"image": image, "engine": "docker", "archive": str(tmp_path / "new.tar")}
    with pytest.raises(InputError, match=f"of this host is for {OTHER}, {OWN} is needed"):
        images.save(given)
    assert images.save({**given, "platform": OTHER, "elsewhere": True})["action"] == "saved"
