"""An image that is older than the release: named and refused before anything starts, unless the
release's source is laid over it or it is accepted. Real images in a real engine.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

import pytest
import source_cases
from docker_host import DockerHost
from server_image import SERVER, SERVER_IMAGE, save_server_image

from hostkit.versions import judge

ROOT = Path(__file__).resolve().parents[1]
NEW = {"vllm": "0.9.0+empty", "omni_infer": "0.4.1"}
OLD = {"vllm": "0.9.0", "omni_infer": "0.1.0"}

pytestmark = pytest.mark.slow


def image(
    host: DockerHost,
    tag: str,
    packages: Mapping[str, str],
    *,
    label: str = "",
    editable: Optional[Path] = None,
) -> str:
    """An image with these packages; editable: the folder that its vllm is used in."""
    made = host.docker("create", SERVER_IMAGE, "bash").stdout.strip()
    site = f"{sysconfig.get_path('stdlib')}/site-packages".lstrip("/")
    files = {"etc/omnikit-test": "x"}
    for name, version in packages.items():
        info = f"{site}/{name}-{version}.dist-info"
        files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        if editable is not None and name == "vllm":
            said = {"url": editable.as_uri(), "dir_info": {"editable": True}}
            files[f"{info}/direct_url.json"] = json.dumps(said)
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "files.tar"
        with tarfile.open(archive, "w") as packed:
            for name, text in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text.encode())
                packed.addfile(entry, io.BytesIO(text.encode()))
        with archive.open("rb") as content:
            host.docker("cp", "-", f"{made}:/", stdin=content)
    change = ["--change", f"LABEL {judge.LABEL}={label}"] if label else []
    host.docker("commit", *change, made, tag)
    host.docker("rm", "--force", made)
    return tag


class Site:
    """The environment "aged" on this machine, against the tests' engine."""

    def __init__(self, folder: Path, engine: DockerHost) -> None:
        self.folder, self.engine = folder, engine
        self.file = folder / "aged.yaml"
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text("{}")
        self.file.write_text(
            "profile: {engine: cpu, model: tiny-qwen2, omni_version: none}\n"
            "runtime: docker\n"
            'release: {date: "2025-09", packages: {vllm: 0.9.0, omni_infer: 0.4.1}}\n'
            "hosts: {local: {address: 127.0.0.1, connection: local}}\n"
            "topology: {colocated: [{hosts: [local]}]}\n"
            f"paths: {{work_dir: '{folder}/work', code_dir: '{folder}/code'}}\n"
            f"model: {{path: '{folder}/model', generate_seed: null}}\n"
            "container: {build: null, venv: null, shm_size: 64m, user: root}\n"
            "engine: {venv: null, requirements: null, memory_per_server_mib: 30}\n"
            f"server: {{command: [python3, {SERVER}]}}\n"
            "ports: {api_base: 22000, master_base: 22200, kv_side_channel: 22400, zmq: 22600}\n"
            "readiness: {poll_interval_s: 0.1, deadline_s: 60}\n"
            "stop: {grace_s: 3}\n"
            "checks: {free_mib: {model: 1, log: 1, code: 1}}\n"
        )

    def run(
        self, name: str, image: str, *words: str, code: Optional[int] = 0
    ) -> subprocess.CompletedProcess[str]:
        """A script about this environment with an image. code: its exit status; None: any."""
        runner = ["bash"] if name.endswith(".sh") else [sys.executable]
        settings = ["-e", str(self.file), "--set", f"container.image={image}"]
        done = subprocess.run(
            [*runner, f"scripts/{name}", *settings, *words],
            cwd=ROOT,
            env={**os.environ, **self.engine.env},
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert code in (done.returncode, None), done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def refused(self, image: str, *words: str) -> str:
        """A deployment that must be refused with nothing started; what it said."""
        said = self.run("deploy.py", image, *words, code=2).stderr
        assert self.containers() == []
        return said

    def check(self, image: str, *words: str) -> Any:
        found = json.loads(self.run("check_env.py", image, "--json", *words, code=None).stdout)
        checks = found["hosts"]["local"]["checks"]
        return next(check for check in checks if check["id"] == "engine.release")

    def containers(self) -> list[str]:
        found = self.engine.docker("ps", "-a", "--format", "{{.Names}}").stdout.split()
        return [name for name in found if "aged" in name or "look" in name]

    def end(self, image: str) -> None:
        self.run("stop.py", image)
        self.run("remove_container.py", image)


@pytest.fixture(scope="module")
def site(docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if docker_host.docker("image", "inspect", SERVER_IMAGE, check=False).returncode != 0:
        with tempfile.TemporaryDirectory() as folder:
            save_server_image(docker_host, Path(folder) / "server.tar")
    made = Site(tmp_path_factory.mktemp("aged"), docker_host)
    try:
        yield made
    finally:
        made.end(SERVER_IMAGE)


def test_a_tag_that_is_too_old(site: Site, docker_host: DockerHost) -> None:
    name = image(docker_host, "omnikit-test/aged:202506272026", OLD)
    assert "note: --set container.image: container.image: its tag says 2025-06-27" in (
        site.run("plan.py", name).stdout
    )
    assert "container.image: its tag says 2025-06-27" in site.refused(name)
    found = site.check(name)
    assert (found["state"], found["required"]) == ("failed", True)
    assert "it has omni_infer 0.1.0 (the release has 0.4.1)" in found["found"]
    assert "paths.local_code_dir" in found["todo"]


def test_an_image_that_is_not_here_yet_is_known_by_its_tag(site: Site) -> None:
    found = site.check("omnikit-test/nowhere:20250701")
    assert (found["state"], found["found"]) == ("failed", "its tag says 2025-07-01")
    found = site.check("omnikit-test/nowhere:latest")
    assert found["state"] == "unknown" and "it cannot be looked into here" in found["found"]


def test_a_tag_that_says_nothing_is_looked_into(site: Site, docker_host: DockerHost) -> None:
    name = image(docker_host, "omnikit-test/aged:old", OLD)
    assert "its tag" not in site.run("plan.py", name).stdout
    assert "omni_infer 0.1.0 (the release has 0.4.1)" in site.refused(name)
    assert site.check(name)["state"] == "failed"
    dry = site.run("deploy.py", name, "--dry-run").stdout
    assert "in the way" in dry and "omni_infer 0.1.0" in dry


def test_an_image_of_the_release(site: Site, docker_host: DockerHost) -> None:
    name = image(docker_host, "omnikit-test/aged:new", NEW)
    found = site.check(name)
    assert (found["state"], found["found"]) == ("ok", "it has vllm 0.9.0+empty, omni_infer 0.4.1")
    site.run("deploy.py", name)
    assert "nothing to change" in site.run("deploy.py", name).stderr
    site.end(name)


def test_what_nothing_is_known_of_is_not_refused(site: Site, docker_host: DockerHost) -> None:
    name = image(docker_host, "omnikit-test/aged:unknown", {})
    found = site.check(name)
    assert found["state"] == "unknown" and "it has no vllm and no omni_infer" in found["found"]
    site.run("deploy.py", name)
    site.end(name)


def test_a_label_of_the_release(site: Site, docker_host: DockerHost) -> None:
    name = image(docker_host, "omnikit-test/aged:labelled", {}, label="none")
    found = site.check(name)
    assert found["state"] == "ok" and judge.LABEL in found["found"]


def test_an_old_image_that_is_accepted(site: Site) -> None:
    name, accept = "omnikit-test/aged:202506272026", ["--set", "image.older_than_release=accept"]
    found = site.check(name, *accept)
    assert (found["state"], found["required"]) == ("warning", False)
    site.run("deploy.py", name, *accept)
    site.end(name)


def test_source_laid_over_an_old_image(site: Site, docker_host: DockerHost) -> None:
    source, code = site.folder / "source", site.folder / "code"
    source_cases.make_patchable(source)
    over = ["--set", f"paths.local_code_dir={source}", "--skip-tags", "pip_install"]
    over += ["--set", f"source.patches={source_cases.PATCH_SCRIPT}"]
    old = "omnikit-test/aged:202506272026"
    found = site.check(old, *over[:2])
    assert found["state"] == "ok" and "the source of the release is laid over it" in found["found"]
    # What runs is still the image's: the source was not installed.
    said = site.run("deploy.py", old, *over, code=2).stderr
    assert "has omni_infer 0.1.0 (the release has 0.4.1), not from the source" in said
    assert "invoke pip-install" in said and "source was patched" not in said
    site.end(old)
    # A copy that somebody brought here without the patches.
    name = image(docker_host, "omnikit-test/aged:used", NEW, editable=code / "infer_engines/vllm")
    core = code / "infer_engines/vllm/vllm/core.py"
    good = core.read_text()
    core.write_text(good.replace("rank = local_rank + offset\n", ""))
    no_sync = [*over[:2], *over[4:], "--skip-tags", "sync_code,pip_install"]
    said = site.run("deploy.py", name, *no_sync, code=2).stderr
    assert "its vLLM lacks 2 of 3 patches of omni-infer: scale_out.patch, on_top.patch" in said
    core.write_text(good)
    site.run("deploy.py", name, *no_sync)
    site.end(name)
