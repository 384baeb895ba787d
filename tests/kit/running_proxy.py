"""A proxy that runs, real nginx before small real servers: fixtures for who imports them."""

from __future__ import annotations

import dataclasses
import http.client
import json
import signal
import subprocess
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, Iterator, Mapping

import pytest
from needs import needs
from port_rooms import free_port
from proxy_backend import Backend
from proxy_settings import SETTINGS

from hostkit.access.service import Service
from hostkit.base import run
from hostkit.base.health import Answer, request, wait_until
from omnikit import proxy
from omnikit.proxy import install


@dataclasses.dataclass
class Running:
    """A proxy that runs. spec: what it was started with."""

    spec: proxy.ProxySpec
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        tls = (self.spec.settings.get("tls") or {}).get("certificate")
        return f"{'https' if tls else 'http'}://127.0.0.1:{self.spec.listen_port}"

    def post(self, body: Any, path: str = "/v1/completions", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return request(self.url + path, body=body, timeout_s=20, headers=named)

    def raw(self, body: bytes, path: str = "/v1/completions") -> Answer:
        """A request whose body is sent as it stands; status 0 when no answer came."""
        client = http.client.HTTPConnection("127.0.0.1", self.spec.listen_port, timeout=20)
        try:
            client.request("POST", path, body, {"Content-Type": "application/json"})
            answer = client.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, answer.read().decode(), headers)
        except OSError as error:
            return Answer(0, str(error), {})
        finally:
            client.close()

    def write(self, spec: proxy.ProxySpec) -> None:
        for name, text in proxy.files(spec, "a test").items():
            (Path(spec.run_dir) / name).write_text(text, encoding="utf-8")

    def log(self, name: str) -> str:
        return (Path(self.spec.log_dir) / name).read_text(encoding="utf-8")

    def access(self, count: int) -> list[dict[str, Any]]:
        """The first count lines of the access log; nginx writes one just after the answer."""
        wait_until(lambda: len(self.log("access.log").splitlines()) >= count, 5, 0.01)
        return [json.loads(line) for line in self.log("access.log").splitlines()]


def _end(running: Running) -> None:
    """As the supervisor ends it: SIGTERM to the group, after which nobody is left in it."""
    run.end_group(running.process.pid, signal.SIGTERM)
    running.process.wait(timeout=10)
    gone = wait_until(lambda: not run.end_group(running.process.pid, 0), 10, 0.01)
    assert gone, "workers of nginx outlived SIGTERM"


@pytest.fixture(scope="session")
def nginx() -> install.Nginx:
    needs("nginx", "lua")
    found = install.find()
    assert found is not None
    return found


@pytest.fixture
def start(
    nginx: install.Nginx, tmp_path: Path
) -> Iterator[Callable[[list[Any], list[Any]], Running]]:
    """Starts a proxy before these prefill and decode servers (backends or addresses).

    beside: more files, by name: keys, certificate.
    """
    all_running: list[Running] = []

    def started(
        prefill: list[Any],
        decode: list[Any],
        *,
        beside: Mapping[str, str] = MappingProxyType({}),
        **settings: Any,
    ) -> Running:
        log_dir = tmp_path / "log dir; #{}"  # an odd name, so that quoting is always tested
        log_dir.mkdir()
        spec = proxy.ProxySpec(
            kind="nginx-lua",
            listen_host="127.0.0.1",
            listen_port=free_port(),
            prefill=tuple(getattr(one, "address", one) for one in prefill),
            decode=tuple(getattr(one, "address", one) for one in decode),
            run_dir=str(tmp_path),
            log_dir=str(log_dir),
            settings={
                **SETTINGS,
                "nginx": nginx.path,
                "modules_dir": nginx.modules_dir,
                **settings,
            },
        )
        for name, text in {**proxy.files(spec, "a test"), **beside}.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        with (tmp_path / "stderr").open("wb") as output:
            running = Running(spec, run.start(proxy.command(spec), output=output, cwd=tmp_path))
        all_running.append(running)
        ready = wait_until(
            lambda: (
                running.process.poll() is not None
                or Service(running.url, own=True)
                .request(proxy.health_path(spec), timeout_s=1)
                .status
                == 200
            ),
            10,
            0.01,
        )
        said = (tmp_path / "stderr").read_text(encoding="utf-8")
        assert ready and running.process.poll() is None, f"nginx did not start: {said}"
        return running

    yield started
    for running in all_running:
        _end(running)


@pytest.fixture
def backend() -> Iterator[Callable[..., Backend]]:
    made: list[Backend] = []

    def one(role: str, **given: Any) -> Backend:
        made.append(Backend(role, **given))
        return made[-1]

    yield one
    for each in made:
        each.close()
