"""Building an image when its inputs changed: with a real engine and a small image."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

import pytest
from docker_host import BASE_IMAGE, DockerHost, docker_engine, make_small_image
from image_cases import forget, image_id, mount_small_disk, use
from needs import needs
from platform_cases import OTHER, OWN, load_for, platform_of, silent_host
from small_wheel import lock_text, small_wheel

from hostkit.base.errors import ActionError, InputError
from hostkit.containers import engines
from omnikit.config import config
from omnikit.config.config import Config
from omnikit.engine import pins as engine_pins
from omnikit.engine.progress import Say
from omnikit.images import build as images_build
from omnikit.images.build import Built
from omnikit.images.recipes import Asked, For, Recipe

TAG = "omnikit-test/app:1"
DOCKERFILE = f"""ARG BASE={BASE_IMAGE}
FROM ${{BASE}} AS build
LABEL omnikit.stage=app
COPY file /made
FROM ${{BASE}}
ARG WORD=none
COPY --from=build /made /made
RUN echo "$WORD" >/word
"""


def settings(*sets: str) -> Config:
    return config.load("local", (), ["image.free_mib=1", *sets], environ={})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a Dockerfile of two stages."""
    made = tmp_path / "app"
    made.mkdir()
    (made / "Dockerfile").write_text(DOCKERFILE)
    (made / "file").write_text("one")
    return made


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Contexts of tests are not among those of a user."""
    monkeypatch.setattr(images_build, "WORK", tmp_path / "work")
    return tmp_path / "work"


def build(
    folder: Path, *sets: str, dry_run: bool = False, tell: Say = print, **asked: object
) -> Built:
    wanted = Asked(**{"name": str(folder), "tag": TAG, **asked})  # type: ignore[arg-type]
    return images_build.build(settings(*sets), wanted, tell, dry_run=dry_run)


def test_the_command_has_labels_and_arguments_but_no_address_of_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://user:secret@proxy:1")
    recipe = Recipe("app", "app:1", {}, "base:2", args={"BASE": "base:2"}, labels={"x": "y"})
    engine = engines.Engine("podman", "/usr/bin/podman")
    words = images_build.build_argv(engine, recipe, "abc", Path("/context"), "linux/arm64")
    assert words[:4] == ["/usr/bin/podman", "build", "--platform", "linux/arm64"]
    assert words[4:8] == ["--network=host", "--force-rm", "--tag", "app:1"]
    labels = [words[i + 1] for i, word in enumerate(words) if word == "--label"]
    assert labels == [
        "org.opencontainers.image.title=app",
        "x=y",
        "org.opencontainers.image.base.name=base:2",
        "omnikit.image=app",
        "omnikit.inputs=abc",
    ]
    args = [words[i + 1] for i, word in enumerate(words) if word == "--build-arg"]
    assert args == ["BASE=base:2", "http_proxy"]
    assert words[-1] == "/context"


@pytest.mark.needs("docker")
def test_an_engine_that_does_not_run_is_named_before_anything_is_fetched(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, work: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(InputError, match="the Docker daemon is not running"):
        build(folder)
    assert not (work / "context-app").exists()


def test_wheels_that_are_missing_need_space(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text(lock_text(small_wheel(tmp_path, "one", "1.0")))
    recipe = Recipe("app", TAG, {}, None, pins=pins)
    work.mkdir()
    engine = engines.Engine("docker", "true")  # says nothing of where images live
    made, target = settings("engine.install_disk_mib=99999999"), For("3.11", "x86_64")
    with pytest.raises(InputError, match=r"engine\.install_disk_mib"):
        images_build._check_space(made, engine, recipe, target)
    small_wheel(work / "wheels-app", "one", "1.0")
    assert set(engine_pins.read_pins(pins)) == {"one"}
    images_build._check_space(made, engine, recipe, target)


@pytest.mark.parametrize(("setting", "wanted"), [(60000, 3000), (50, 50)])
def test_an_image_that_says_what_room_it_takes_does_not_need_that_of_the_servers_image(
    monkeypatch: pytest.MonkeyPatch, setting: int, wanted: int
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(
        images_build.image_look, "check_images_space", lambda _engine, mib, _tag: asked.append(mib)
    )
    recipe = Recipe("control", TAG, {}, None, room_mib=3000)
    engine, target = engines.Engine("docker", "true"), For("3.11", "x86_64")
    images_build._check_space(settings(f"image.free_mib={setting}"), engine, recipe, target)
    assert asked == [wanted]


@pytest.mark.slow
class TestWithAnEngine:
    @pytest.fixture(autouse=True)
    def this_engine(self, docker_host: DockerHost, monkeypatch: pytest.MonkeyPatch):
        use(monkeypatch, docker_host)
        yield
        forget(docker_host, TAG)

    def content(self, host: DockerHost, path: str) -> str:
        words = ("run", "--rm", "--network=host", TAG, "/bin/cat", path)
        return host.docker(*words).stdout.strip()

    def test_built_then_unchanged_then_built_again_when_an_input_changed(
        self, docker_host: DockerHost, folder: Path
    ) -> None:
        before = docker_host.docker("image", "ls", "-q").stdout.split()
        said: list[str] = []
        first = build(folder, tell=said.append)
        assert first.result == "built"
        assert first.id == f"sha256:{image_id(docker_host, TAG)}"
        assert self.content(docker_host, "/made") == "one"
        assert any("step 4 of" in line for line in said)
        assert "MiB" in said[-1]
        second = build(folder)
        assert (second.result, second.id) == ("unchanged", first.id)
        (folder / "file").write_text("two")
        said.clear()
        third = build(folder, tell=said.append)
        assert third.result == "built"
        assert said[0] == f"{TAG}: its inputs changed"
        assert self.content(docker_host, "/made") == "two"
        # Neither the former image nor the stage that it was copied from stays.
        assert image_id(docker_host, first.id) == ""
        after = docker_host.docker("image", "ls", "-q").stdout.split()
        assert sorted(set(after) - set(before)) == [third.id[7:19]]

    def test_arguments_reach_the_dockerfile_and_count_as_inputs(
        self, docker_host: DockerHost, folder: Path
    ) -> None:
        assert build(folder, args={"WORD": "hello"}).result == "built"
        assert self.content(docker_host, "/word") == "hello"
        assert build(folder, args={"WORD": "hello"}).result == "unchanged"
        assert build(folder, args={"WORD": "other"}).result == "built"

    def test_a_dry_run_shows_the_command_and_builds_nothing(
        self, docker_host: DockerHost, folder: Path, work: Path
    ) -> None:
        found = build(folder, dry_run=True)
        assert found.result == "would be built"
        assert f"--tag {TAG}" in found.commands[-1]
        assert image_id(docker_host, TAG) == ""
        assert not (work / "context-app").exists()

    def test_a_deploy_has_its_image_built_once(self, docker_host: DockerHost, folder: Path) -> None:
        made = settings(f"container.build={folder}", f"container.image={TAG}")
        assert images_build.ensure(made, print) == "built"
        assert images_build.ensure(made, print) == "unchanged"

    def test_an_image_of_somebody_else_with_this_name_is_kept(
        self, docker_host: DockerHost, folder: Path
    ) -> None:
        foreign = docker_host.docker("create", BASE_IMAGE, "/bin/bash").stdout.strip()
        other = docker_host.docker("commit", foreign, TAG).stdout.strip()
        docker_host.docker("rm", foreign)
        said: list[str] = []
        assert build(folder, tell=said.append).result == "built"
        assert said[0] == f"{TAG}: was not built by this toolkit"
        assert image_id(docker_host, other) == other.partition(":")[2]
        docker_host.docker("image", "rm", other)

    def test_a_former_image_stays_while_a_container_needs_it(
        self, docker_host: DockerHost, folder: Path
    ) -> None:
        first = build(folder)
        name = docker_host.docker("create", TAG, "/bin/bash").stdout.strip()
        (folder / "file").write_text("two")
        said: list[str] = []
        try:
            assert build(folder, tell=said.append).result == "built"
            assert image_id(docker_host, first.id)
            assert "a container needs it" in " ".join(said)
        finally:
            docker_host.docker("rm", name)

    def test_a_step_that_fails_is_named_and_the_next_build_goes_on(
        self, docker_host: DockerHost, folder: Path
    ) -> None:
        good = (folder / "Dockerfile").read_text()
        (folder / "Dockerfile").write_text(f"{good}RUN echo the reason >&2; false\n")
        with pytest.raises(ActionError) as caught:
            build(folder)
        assert "RUN echo the reason >&2; false" in caught.value.what.splitlines()[0]
        assert "  the reason" in caught.value.what
        assert image_id(docker_host, TAG) == ""
        assert docker_host.docker("ps", "-aq").stdout == ""
        (folder / "Dockerfile").write_text(good)
        assert build(folder).result == "built"

    def test_a_base_that_cannot_be_had_is_named(
        self, docker_host: DockerHost, folder: Path
    ) -> None:
        with pytest.raises(ActionError, match=r"the base image 127\.0\.0\.1:9/no:1 is not here"):
            build(folder, "image.attempts=1", base="127.0.0.1:9/no:1")

    def test_too_little_space_is_said_before_building(
        self, docker_host: DockerHost, folder: Path
    ) -> None:
        with pytest.raises(InputError, match=r"too little space.*image\.free_mib"):
            build(folder, "image.free_mib=99999999")
        assert image_id(docker_host, TAG) == ""

    def test_a_second_build_at_the_same_time_is_refused(
        self, docker_host: DockerHost, folder: Path, work: Path
    ) -> None:
        with (
            images_build.locked(work, "app"),
            pytest.raises(InputError, match="a build of the image app is under way"),
        ):
            build(folder)


@pytest.mark.slow
def test_a_full_disk_is_named_and_nothing_half_done_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(tempfile.mkdtemp(prefix="omni"))  # short: sockets' paths have 108 bytes
    mount_small_disk(place / "d", 100)
    try:
        with docker_engine(place / "d" / "e") as host:
            use(monkeypatch, host)
            make_small_image(host)
            (folder / "Dockerfile").write_text(
                f"FROM {BASE_IMAGE}\nLABEL omnikit.stage=app\nRUN printf '%090000000d' 1 >/big\n"
            )
            with pytest.raises(ActionError, match="the disk is full; the build ended at step 3"):
                build(folder)
            left = host.docker("image", "ls", "-a", "--format", "{{.Repository}}").stdout.split()
            assert left == [BASE_IMAGE.partition(":")[0]]
            assert host.docker("ps", "-aq").stdout == ""
    finally:
        subprocess.run(["umount", str(place / "d")], check=True)
        shutil.rmtree(place)


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> engines.Engine:
    """Podman's images of this test are below its folder."""
    needs("podman", root=True)
    storage = tmp_path / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/images"\nrunroot = "{tmp_path}/run"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    return engines.find("podman")


@pytest.mark.slow
def test_podman_builds_and_finds_it_unchanged(
    podman: engines.Engine, docker_host: DockerHost, tmp_path: Path, folder: Path
) -> None:
    archive = tmp_path / "base.tar"
    docker_host.docker("save", "--output", str(archive), BASE_IMAGE)
    podman.ask("load", "--input", str(archive))
    said: list[str] = []
    # Podman names what was loaded without a registry like this.
    base = f"localhost/{BASE_IMAGE}"
    assert build(folder, "container.engine=podman", base=base, tell=said.append).result == "built"
    assert any("step 2 of" in line for line in said)
    assert build(folder, "container.engine=podman", base=base).result == "unchanged"
    left = json.loads(podman.ask("image", "ls", "--all", "--format", "json").out)
    assert not [image for image in left if (image.get("Labels") or {}).get("omnikit.stage")]


@pytest.mark.slow
def test_buildkit_builds_it_too(
    docker_host: DockerHost, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, docker_host)
    monkeypatch.setenv("DOCKER_BUILDKIT", "1")
    monkeypatch.setenv("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")  # Debian's client has it built in
    said: list[str] = []
    try:
        assert build(folder, tell=said.append).result == "built"
        assert any("step 2 of 2" in line or "step 2 of 3" in line for line in said)
        assert build(folder).result == "unchanged"
    finally:
        forget(docker_host, TAG)


# Platforms.


@pytest.fixture
def engine(docker_host: DockerHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerHost]:
    use(monkeypatch, docker_host)
    yield docker_host
    forget(docker_host, TAG, "t/foreign:1")


@pytest.mark.slow
def test_an_image_is_built_for_this_machine_or_for_what_is_set(
    engine: DockerHost, folder: Path
) -> None:
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY file /made\n")
    assert build(folder).result == "built" and platform_of(engine, TAG) == OWN
    said: list[str] = []
    other = f"image.platform={OTHER}"
    # The engine would take the step of the build before, and call that an image for the other.
    assert build(folder, other, tell=said.append).result == "built"
    assert platform_of(engine, TAG) == OTHER
    assert f"{TAG}: steps of another platform were reused; once more without" in said
    assert build(folder, other).result == "unchanged"
    assert build(folder).result == "built" and platform_of(engine, TAG) == OWN


@pytest.mark.slow
def test_a_base_for_others_is_refused_by_name(engine: DockerHost, folder: Path) -> None:
    base = load_for(engine, "127.0.0.1:9/foreign:1", OTHER)
    try:
        with pytest.raises(ActionError, match=f"{base} is here only for {OTHER} and cannot be pu"):
            build(folder, "image.attempts=1", base=base)
        (folder / "Dockerfile").write_text("ARG BASE=x\nFROM ${BASE}\nCOPY file /made\n")
        assert build(folder, f"image.platform={OTHER}", base=base).result == "built"
        assert platform_of(engine, TAG) == OTHER
    finally:
        forget(engine, base)


@pytest.mark.slow
def test_a_step_that_only_another_processor_can_run_is_explained(
    engine: DockerHost, folder: Path
) -> None:
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xf3\x00" + bytes(44)  # of RISC-V
    (folder / "program").write_bytes(header)
    (folder / "program").chmod(0o755)
    (folder / "Dockerfile").write_text(
        f'FROM {BASE_IMAGE}\nCOPY program /program\nRUN ["/program"]\n'
    )
    with pytest.raises(ActionError, match="cannot run programs of the image's arch") as caught:
        build(folder)
    assert "on a host of that architecture" in str(caught.value)


@pytest.mark.slow
def test_wheels_for_another_machine_than_the_image_are_refused_before_anything(
    engine: DockerHost, tmp_path: Path, work: Path
) -> None:
    machine = engines.machine(OWN)
    small_wheel(tmp_path / "dist", "omni_infer", "1", tag=f"cp311-cp311-linux_{machine}")
    small_wheel(tmp_path / "dist", "vllm", "2")
    asked = Asked("omni-infer", tag=TAG, base="no/such:1", wheels=tmp_path / "dist")

    def made(*sets: str, dry_run: bool) -> Built:
        given = config.load("2p1d", (), ["image.attempts=1", *sets], environ={})
        return images_build.build(given, asked, print, dry_run=dry_run)

    with pytest.raises(InputError, match=f"omni_infer-1-.*{machine}, not for ") as caught:
        made(f"image.platform={OTHER}", dry_run=False)
    assert "vllm" not in str(caught.value) and not work.exists()
    assert (
        made(f"image.platform={OWN}", dry_run=True)
        .commands[-1]
        .startswith(f"{shutil.which('docker')} build --platform {OWN} ")
    )
    # Nobody was asked: the line asks the first of the hosts itself.
    shown = made(dry_run=True).commands
    assert shown[0].endswith('@192.0.2.11 uname -m)" no/such:1') or "192.0.2.11 uname" in shown[0]
    assert 'build --platform "linux/$(ssh ' in shown[1]


@pytest.mark.slow
def test_where_no_host_can_be_asked_it_is_for_this_machine_and_that_is_said(
    engine: DockerHost, folder: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    with silent_host(tmp_path) as path:
        given = config.load(str(path), (), ["image.free_mib=1"], environ={})
        found = images_build.build(given, Asked(str(folder), tag=TAG), said.append)
    assert found.result == "built" and platform_of(engine, TAG) == OWN
    assert said[0].startswith(f"app: for {OWN}, as this machine is; none of the hosts can say")
    assert "--set image.platform=linux/arm64" in said[0]
