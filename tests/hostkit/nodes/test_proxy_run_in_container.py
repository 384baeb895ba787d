"""omni-infer's proxy in a real container: real nginx at its places there, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator

import pytest
from docker_host import BASE_IMAGE, DockerHost
from host_cases import clean, record_of
from port_rooms import free_port
from server_image import server_image

from hostkit.base.errors import ActionError, InputError
from hostkit.base.health import request
from hostkit.base.records import pid_here
from hostkit.nodes import needed, observe, start_stop
from omnikit.config import config
from omnikit.fleet import bundle
from omnikit.prepare.deployment import prepare

# A real engine and nginx, seconds together.
pytestmark = pytest.mark.slow

NGINX = "/usr/local/nginx/nginx"
CONTAINER = "omnikit_omni_c0"
PROXY = {"proxy"}


class Site:
    """A host whose proxy of kind omni-nginx is to run in a container."""

    def __init__(self, folder: Path, docker: DockerHost, image: str) -> None:
        self.folder, self.docker, self.port = folder, docker, free_port()
        (folder / "model").mkdir()
        self.file = folder / "omni.yaml"
        self.file.write_text(
            "profile: {engine: cpu, model: tiny-qwen2}\n"
            "runtime: docker\n"
            f"paths: {{work_dir: {folder}/work}}\n"
            f"model: {{path: {folder}/model}}\n"
            "hosts: {local: {address: 127.0.0.1, connection: local}}\n"
            "topology: {colocated: [{hosts: [local]}], proxy: local}\n"
            f"ports: {{proxy: {self.port}, ephemeral_low: 65535}}\n"
            f"container: {{image: '{image}', build: null, venv: null, shm_size: 16m}}\n"
            "proxy: {kind: omni-nginx, listen_host: 127.0.0.1, worker_processes: 1}\n"
            "stop: {grace_s: 10}\n"
        )

    def host(self, *assignments: str) -> dict[str, Any]:
        """The host's data, its files and code where they belong; only the proxy is in it."""
        loaded = config.load(str(self.file), assignments=assignments, environ={})
        files = prepare(loaded, {}, {"kind": "omni-nginx"}, {}).files["local"]
        work = self.folder / "work"
        code = {f"scripts/{name}": data for name, data in bundle.host_code().items()}
        shipped = {f"bundle/{name}": text.encode() for name, text in files.items()}
        for name, data in {**code, **shipped}.items():
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        host: dict[str, Any] = json.loads(files["host.json"])
        host["nodes"] = [node for node in host["nodes"] if node["role"] == "proxy"]
        return host

    def inside(self, code: str) -> None:
        """Run Python code in the container."""
        self.docker.docker("exec", CONTAINER, "python3", "-c", code)

    def health(self) -> int:
        return request(f"http://127.0.0.1:{self.port}/health", timeout_s=5).status

    def program(self, host: dict[str, Any]) -> str:
        """The program that runs, as its container's file system names it."""
        pid = pid_here(record_of(host, "c0")["servers"][0]["process"])
        return str(Path(f"/proc/{pid}/exe").readlink())


@pytest.fixture(scope="module")
def image(docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("omni")
    return server_image(docker_host, folder, "omnikit-test/omni:1", nginx=NGINX)


@pytest.fixture
def site(
    tmp_path: Path, docker_host: DockerHost, image: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    for name, value in docker_host.env.items():
        monkeypatch.setenv(name, value)
    made = Site(tmp_path, docker_host, image)
    yield made
    clean(made.host())
    docker_host.docker("rm", "--force", CONTAINER)


def started(host: dict[str, Any]) -> dict[str, Any]:
    start_stop.up(host, PROXY)
    verdict, nodes = observe.wait(host, PROXY, 20)
    assert verdict == "ready", nodes
    return host


def test_the_program_at_omni_infers_place_runs_and_takes_files_over(site: Site) -> None:
    host = site.host()
    assert start_stop.containers_up(host) == {CONTAINER: "started"}
    started(host)
    assert site.health() == 200 and site.program(host) == NGINX
    assert start_stop.up(host, PROXY) == {"c0": "unchanged"}
    # nginx's own look at other files is that of the program that runs.
    host = site.host("proxy.start_core=0", "proxy.max_fails=7")
    assert start_stop.up(host, PROXY) == {"c0": "reloaded"}
    assert site.health() == 200 and site.program(host) == NGINX


def test_a_large_request_goes_through_a_file_of_nginxs_workers(site: Site) -> None:
    host = site.host("proxy.client_body_buffer_size=1k")
    start_stop.containers_up(host)
    started(host)
    body = {"prompt": "long " * 10_000}
    answer = request(f"http://127.0.0.1:{site.port}/v1/completions", body=body, timeout_s=5)
    assert answer.status == 502  # no server is behind it; 500 were a file that cannot be written


def test_without_it_the_one_in_the_containers_path_runs(site: Site) -> None:
    host = site.host()
    start_stop.containers_up(host)
    site.inside(
        "import os; os.makedirs('/usr/sbin', exist_ok=True);"
        f" os.rename('{NGINX}', '/usr/sbin/nginx')"
    )
    started(host)
    assert site.program(host) == "/usr/sbin/nginx"
    host = site.host("proxy.max_fails=7")
    assert start_stop.up(host, PROXY) == {"c0": "reloaded"}


def problems(host: dict[str, Any]) -> str:
    return "\n".join(needed.problems(host, needed.look(host)))


def test_cores_that_the_host_does_not_have_are_a_note(site: Site) -> None:
    host = site.host("proxy.start_core=1000")
    start_stop.containers_up(host)
    actions = needed.look(host)
    assert problems(host) == ""
    [note] = needed.notes(host, actions)
    assert "cores up to 1000" in note and "proxy.start_core" in note
    started(host)
    assert site.health() == 200
    assert needed.notes(host, needed.look(host)) == []  # nothing is started


def test_an_image_without_it_is_named_before_there_is_a_container(
    site: Site, docker_host: DockerHost
) -> None:
    host = site.host("container.image=" + BASE_IMAGE)
    text = problems(host)
    assert f"the container {CONTAINER} has no program for the proxy" in text
    assert f"{NGINX}, then nginx in PATH" in text and "What to do:" in text
    assert docker_host.docker("ps", "-aq").stdout == ""
    with pytest.raises(ActionError, match="has no program for the proxy"):
        start_stop.containers_up(host)  # whoever does not look first hears it then


def test_a_container_without_it_is_named_and_may_have_it_elsewhere(site: Site) -> None:
    host = site.host()
    start_stop.containers_up(host)
    assert problems(host) == ""
    site.inside(f"import os; os.rename('{NGINX}', '/opt/elsewhere')")
    assert f"{CONTAINER} has no program" in problems(host)
    host = site.host("proxy.nginx=/opt/elsewhere")
    assert problems(host) == ""
    started(host)
    assert site.health() == 200


def test_a_program_or_module_that_is_not_there_is_named_while_the_proxy_runs(site: Site) -> None:
    host = site.host()
    start_stop.containers_up(host)
    started(host)
    assert "looked for /no/such/nginx." in problems(site.host("proxy.nginx=/no/such/nginx"))
    # Its own balancer needs a module of omni-infer, which this image does not have.
    wrong = site.host("proxy.decode_balance=length_balance")
    with pytest.raises(InputError, match="nginx does not accept"):
        start_stop.up(wrong, PROXY)
    assert site.health() == 200 and site.program(host) == NGINX
    wrong = site.host("proxy.decode_balance=length_balance", "ports.proxy=1")
    assert "ngx_http_upstream_length_balance_module" in problems(wrong)
    assert "proxy.modules_dir" in problems(wrong)


def test_the_environment_that_the_image_sets_up_counts_for_the_path(site: Site) -> None:
    start_stop.containers_up(site.host())
    site.inside(
        "import os; os.makedirs('/root', exist_ok=True);"
        " os.makedirs('/opt/own', exist_ok=True);"
        f" os.rename('{NGINX}', '/opt/own/nginx');"
        " open('/root/.bashrc', 'w').write('export PATH=/opt/own:$PATH\\n')"
    )
    assert f"{CONTAINER} has no program" in problems(site.host())
    host = site.host("container.profile=/root/.bashrc", "container.profile_library=null")
    assert problems(host) == ""
    started(host)
    assert site.program(host) == "/opt/own/nginx"
