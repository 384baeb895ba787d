"""A real Prometheus that reads a deployment, for the tests of what is written for it."""

from __future__ import annotations

import math
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import quote

from needs import needs
from port_rooms import free_port

from hostkit.base.health import request, wait_until


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    url: str

    def ask(self, path: str) -> Any:
        """The data of an answer of its API."""
        answer = request(f"{self.url}/api/v1/{path}", timeout_s=10)
        assert answer.status == 200, answer.text
        return answer.json()["data"]

    def health(self) -> dict[str, str]:
        """What is read: instance -> up, down or unknown."""
        found = self.ask("targets")["activeTargets"]
        return {target["labels"]["instance"]: target["health"] for target in found}

    def values(self, expression: str) -> list[float]:
        """An expression's values now, those that are numbers."""
        found = self.ask(f"query?query={quote(expression)}")["result"]
        numbers = [float(one["value"][1]) for one in found]
        return [number for number in numbers if not math.isnan(number)]


@contextmanager
def prometheus(config: Path, folder: Path) -> Iterator[Prometheus]:
    """Runs with this configuration until the end; all targets have been read once."""
    needs("prometheus")
    address = f"127.0.0.1:{free_port()}"
    words = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("w") as log:
        running = subprocess.Popen(
            [*words, f"--web.listen-address={address}"], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            made = Prometheus(f"http://{address}")
            ready = f"{made.url}/-/ready"
            assert wait_until(lambda: request(ready, timeout_s=5).status == 200, 60, 0.1)
            assert wait_until(lambda: "unknown" not in made.health().values(), 60, 0.1)
            yield made
        finally:
            running.terminate()
            running.wait(30)
