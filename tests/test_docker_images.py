"""The images of docker/: clean Dockerfiles, and images that are built and do their work."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest
import yaml
from base_image import build_image, cpu_engine_image, debian_image
from docker_host import DockerHost
from image_cases import forget
from platform_cases import OWN
from small_wheel import small_wheel

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*/Dockerfile"))
each_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.parent.name)

# What must not be in an image: what was needed only to make it, and what is nobody's business.
_UNWANTED = re.compile(
    r"\.whl$|(^|/)\.cache(/|$)|(^|/)pip\.conf$|(^|/)\.netrc$|(^|/)id_(rsa|ed25519)|\.local\.yaml$"
    r"|^var/lib/apt/lists/.|^var/cache/apt/archives/.*\.deb$|(^|/)\.git(/|$)|^root/.config/pip"
)


@each_dockerfile
def test_hadolint_finds_nothing(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    words = [str(hadolint), "--config", str(DOCKER / ".hadolint.yaml"), str(path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_ignored_rule_has_its_reason() -> None:
    text = (DOCKER / ".hadolint.yaml").read_text()
    for rule in yaml.safe_load(text)["ignored"]:
        assert re.search(rf"^  # .+\n  - {rule}$", text, re.MULTILINE), rule


@each_dockerfile
def test_every_image_is_explained(path: Path) -> None:
    text = (DOCKER / "README.md").read_text()
    section = re.search(rf"^## {path.parent.name}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert section, f"docker/README.md has no section {path.parent.name}"
    assert f"build_image.py {path.parent.name}" in section[1]
    assert "docker build" in section[1]


@each_dockerfile
def test_the_base_is_an_argument_with_a_pinned_tag(path: Path) -> None:
    found = re.search(r"^ARG BASE=(\S+:\S+)$", path.read_text(), re.MULTILINE)
    assert found and not found[1].endswith(":latest")


def files(host: DockerHost, image: str) -> list[str]:
    """The paths of all files of all layers, also of those that a later layer hides.

    Read where the engine keeps them: "docker save" would write gigabytes first. What a layer hides
    of another is there a device, no file.
    """
    driver = json.loads(host.docker("image", "inspect", image).stdout)[0]["GraphDriver"]
    assert driver["Name"] == "overlay2", driver
    layers = [driver["Data"]["UpperDir"], *driver["Data"].get("LowerDir", "").split(":")]
    found = []
    for layer in filter(None, layers):
        for place, _, names in os.walk(layer):
            paths = (Path(place, name) for name in names)
            found += [
                str(path.relative_to(layer)) for path in paths if stat.S_ISREG(path.lstat().st_mode)
            ]
    assert found
    return found


def check_content(host: DockerHost, image: str, mib: int, layers: int) -> None:
    """Nothing unwanted in any layer, no larger than expected, and few layers."""
    assert [name for name in files(host, image) if _UNWANTED.search(name)] == []
    inspected = json.loads(host.docker("image", "inspect", image).stdout)[0]
    size = inspected["Size"] >> 20
    print(f"{image}: {size} MiB, {len(inspected['RootFS']['Layers'])} layers")
    assert size < mib
    assert len(inspected["RootFS"]["Layers"]) <= layers
    labels = inspected["Config"]["Labels"]
    assert labels["omnikit.image"] == labels["org.opencontainers.image.title"]
    assert labels["org.opencontainers.image.version"]
    assert "omnikit.stage" not in labels


def inside(host: DockerHost, image: str, *words: str, user: str = "12345:12345") -> str:
    """Run a program of an image as a user that the image does not know; what it said."""
    options = ("--rm", "--network=host", "--user", user, "--entrypoint", words[0])
    done = host.docker("run", *options, image, *words[1:], check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def debian(docker_host: DockerHost) -> str:
    return debian_image(docker_host)


@pytest.mark.slow
class TestControl:
    TAG = "omnikit-test/control:1"

    @pytest.fixture(scope="class")
    def image(self, docker_host: DockerHost, debian: str) -> Iterator[str]:
        build_image(docker_host, "control", "--tag", self.TAG, "--base", debian)
        yield self.TAG
        forget(docker_host, self.TAG)

    def test_invoke_lists_the_tasks_as_an_ordinary_user(
        self, docker_host: DockerHost, image: str
    ) -> None:
        said = docker_host.docker("run", "--rm", "--network=host", image).stdout
        assert "deploy" in said and "status" in said
        known = ("--rm", "--network=host", "--entrypoint", "bash", image, "-c", "id -un; ssh -V")
        assert docker_host.docker("run", *known).stdout == "omnikit\n"

    def test_it_plans_a_fleet_and_has_what_reaches_hosts(
        self, docker_host: DockerHost, image: str
    ) -> None:
        words = ("run", "--rm", "--network=host", image, "plan", "--environment", "2p1d")
        assert "9000" in docker_host.docker(*words).stdout
        tools = "ansible-playbook --version; ssh -V; rsync --version; git --version; make status -n"
        said = inside(docker_host, image, "bash", "-ec", tools, user="omnikit")
        assert "ansible-playbook [core" in said and "OpenSSH" in said and "rsync" in said
        assert ".venv/bin/invoke status" in said, "make must find the environment complete"

    def test_nothing_unwanted_and_not_large(self, docker_host: DockerHost, image: str) -> None:
        # Of these, what compiles the conversion of weights (llvmlite) is 135 MiB.
        check_content(docker_host, image, mib=800, layers=5)

    def test_the_second_build_is_unchanged(
        self, docker_host: DockerHost, image: str, debian: str
    ) -> None:
        done = build_image(docker_host, "control", "--tag", image, "--base", debian)
        assert done.stdout == f"{image}: unchanged\n"


@pytest.mark.slow
class TestOmniInfer:
    BASE, TAG = "omnikit-test/infer-base:1", "omnikit-test/infer:1"

    @pytest.fixture(scope="class")
    def base(
        self, docker_host: DockerHost, debian: str, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[str]:
        """Stands in for omni-infer's image, which has several GB: a Python with older packages."""
        folder = tmp_path_factory.mktemp("base")
        for name in ("vllm", "omni_infer", "omni_placement"):
            small_wheel(folder / "old", name, "0.1", content="OLD = True\n")
        (folder / "Dockerfile").write_text(
            f"FROM {debian}\n"
            "RUN apt-get update && apt-get install -y --no-install-recommends python3-venv\n"
            "RUN python3 -m venv /opt/venv\nENV PATH=/opt/venv/bin:$PATH\nCOPY old/ /old/\n"
            "RUN pip install --no-cache-dir --no-index /old/*.whl && rm -rf /old\n"
        )
        docker_host.docker("build", "--network=host", "--tag", self.BASE, str(folder))
        yield self.BASE
        forget(docker_host, self.BASE)

    def test_the_wheels_replace_what_the_base_had(
        self, docker_host: DockerHost, base: str, tmp_path: Path
    ) -> None:
        dist = tmp_path / "build" / "dist"
        small_wheel(dist, "vllm", "0.9.0+cpu")
        small_wheel(dist, "omni_infer", "0.4.1")
        words = ("omni-infer", "--tag", self.TAG, "--base", base, "--wheels", str(dist))
        words = (*words, "--environment", "2p1d", "--set", "image.free_mib=1000")
        words = (*words, "--set", f"image.platform={OWN}")  # its hosts cannot be asked
        try:
            build_image(docker_host, *words)
            code = "import importlib.metadata as m, vllm, omni_infer, importlib.util as u;"
            code += "print(m.version('vllm'), m.version('omni_infer'), vllm.VERSION,"
            code += " hasattr(vllm, 'OLD'), u.find_spec('omni_placement'))"
            said = inside(docker_host, self.TAG, "python3", "-c", code)
            assert said == "0.9.0+cpu 0.4.1 0.9.0+cpu False None\n"
            own = files(docker_host, self.TAG)
            assert not [name for name in own if "tmp/wheels" in name or "tmp/installed" in name]
            assert build_image(docker_host, *words).stdout == f"{self.TAG}: unchanged\n"
            small_wheel(dist, "omni_infer", "0.4.1", content="# built again\n")
            assert build_image(docker_host, *words).stdout == f"{self.TAG}: built\n"
        finally:
            forget(docker_host, self.TAG)


@pytest.mark.slow
class TestCpuEngine:
    """The image takes minutes the first time; the test of the deployment uses the same."""

    @pytest.fixture(scope="class")
    def image(self, docker_host: DockerHost) -> str:
        return cpu_engine_image(docker_host)

    def test_any_user_can_import_the_engine(self, docker_host: DockerHost, image: str) -> None:
        code = "import vllm, nixl._api; print('vllm', vllm.__version__)"
        said = inside(docker_host, image, "/opt/engine/bin/python", "-c", code)
        assert "vllm 0.32.0" in said

    def test_it_has_the_proxy_and_what_the_toolkit_runs_there(
        self, docker_host: DockerHost, image: str
    ) -> None:
        code = "/usr/sbin/nginx -V; ip -V; python3 --version; lscpu >/tmp/lscpu;"
        code += " ls /usr/lib/nginx/modules"
        said = inside(docker_host, image, "bash", "-ec", code)
        assert "nginx version" in said and "ngx_http_lua_module.so" in said
        assert "Python 3.11" in said

    def test_nothing_unwanted_and_few_layers(self, docker_host: DockerHost, image: str) -> None:
        check_content(docker_host, image, mib=3000, layers=3)

    def test_the_second_build_is_unchanged(
        self, docker_host: DockerHost, image: str, debian: str
    ) -> None:
        done = build_image(docker_host, "cpu-engine", "--tag", image, "--base", debian)
        assert done.stdout == f"{image}: unchanged\n"
