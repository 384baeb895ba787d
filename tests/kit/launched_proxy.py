"""A proxy for the tests of the launcher: real nginx between small real servers."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

from needs import needs
from proxy_backend import Backend
from proxy_settings import SETTINGS

from omnikit import proxy
from omnikit.proxy import install
from omnikit.proxy import launch as proxy_wanted


def wanted(
    folder: Path, port: int, prefill: list[Backend], decode: list[Backend], **settings: object
) -> proxy_wanted.Wanted:
    """What the launcher would be asked to run below folder."""
    needs("nginx", "lua")
    found = install.find()
    assert found is not None
    own = {**SETTINGS, "nginx": found.path, "modules_dir": found.modules_dir, **settings}
    spec = proxy.ProxySpec(
        kind="nginx-lua",
        listen_host="127.0.0.1",
        listen_port=port,
        prefill=tuple(one.address for one in prefill),
        decode=tuple(one.address for one in decode),
        run_dir=str(folder / "run"),
        log_dir=str(folder / "logs"),
        settings=own,
    )
    files = proxy.files(spec, "a test")
    return proxy_wanted.from_text("nginx-lua", files, "a test", {"nginx": found.path})


class Stream:
    """A streamed request of which the first event has arrived."""

    def __init__(self, port: int) -> None:
        self.client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        body = json.dumps({"model": "m", "prompt": "p", "stream": True})
        self.client.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        self.answer = self.client.getresponse()
        assert self.answer.status == 200
        assert b"one" in self.answer.readline()

    def rest(self) -> bytes:
        """The remaining events, to the end of the answer."""
        try:
            return self.answer.read()
        except http.client.IncompleteRead:
            return b"cut off"
        finally:
            self.client.close()
