"""Building an image when its inputs changed: with a real engine and a small image."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from docker_host import BASE_IMAGE, DockerHost, docker_engine, make_small_image
from image_cases import forget, image_id, mount_small_disk, use
from omnikit import config, engine_pins, host_engine, image_build, image_context
from omnikit.config import Config
from omnikit.engine_progress import Say
from omnikit.errors import ActionError, InputError
from omnikit.image_build import Built
from omnikit.image_recipes import Asked, Recipe
from small_wheel import small_wheel

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
    monkeypatch.setattr(image_build, "WORK", tmp_path / "work")
    return tmp_path / "work"


def build(
    folder: Path, *sets: str, dry_run: bool = False, tell: Say = print, **asked: object
) -> Built:
    wanted = Asked(**{"name": str(folder), "tag": TAG, **asked})  # type: ignore[arg-type]
    return image_build.build(settings(*sets), wanted, tell, dry_run=dry_run)


def test_the_command_has_labels_and_arguments_but_no_address_of_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://user:secret@proxy:1")
    recipe = Recipe("app", "app:1", {}, "base:2", args={"BASE": "base:2"}, labels={"x": "y"})
    engine = host_engine.Engine("podman", "/usr/bin/podman")
    words = image_build.build_argv(engine, recipe, "abc", Path("/context"))
    assert words[:4] == ["/usr/bin/podman", "build", "--network=host", "--force-rm"]
    assert words[4:6] == ["--tag", "app:1"]
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
    pins.write_text("one==1.0\n")
    recipe = Recipe("app", TAG, {}, None, pins=pins)
    work.mkdir()
    engine = host_engine.Engine("docker", "true")  # says nothing of where images live
    made = settings("engine.install_disk_mib=99999999")
    with pytest.raises(InputError, match=r"engine\.install_disk_mib"):
        image_build._check_space(made, engine, recipe)
    small_wheel(work / "wheels-app", "one", "1.0")
    assert set(engine_pins.read_pins(pins)) == {"one"}
    image_build._check_space(made, engine, recipe)


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
        assert image_build.ensure(made, print) == "built"
        assert image_build.ensure(made, print) == "unchanged"

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
        with image_context.locked(work, "app"), pytest.raises(InputError, match="is building"):
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
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> host_engine.Engine:
    """Podman's images of this test are below its folder."""
    storage = tmp_path / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/images"\nrunroot = "{tmp_path}/run"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    return host_engine.find("podman")


@pytest.mark.slow
def test_podman_builds_and_finds_it_unchanged(
    podman: host_engine.Engine, docker_host: DockerHost, tmp_path: Path, folder: Path
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
