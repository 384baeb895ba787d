"""The only place that waits: for a condition, with a deadline. And the requests that observe."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, Optional
from urllib.parse import urlsplit

from hostkit.base.values import parsed

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. status 0: there was none, and text says why."""

    status: int
    text: str
    headers: Mapping[str, str]

    def json(self) -> dict[str, Any]:
        """The body as an object; an empty one when it is none."""
        try:
            data = parsed(self.text)
        except ValueError:
            return {}
        return data if isinstance(data, dict) else {}

    def listed(self, name: str) -> list[dict[str, Any]]:
        """The objects in a list of the body; none where it has no such list."""
        found = self.json().get(name)
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def wait_until(condition: Callable[[], bool], deadline_s: float, interval_s: float) -> bool:
    """Look at a condition every interval_s seconds until it holds (True) or deadline_s is over."""
    end = time.monotonic() + deadline_s
    while not condition():
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(interval_s, left))
    return True


def request(
    url: str,
    *,
    timeout_s: float,
    body: Optional[Any] = None,
    method: Optional[str] = None,
    headers: Optional[Mapping[str, str]] = None,
    tls: Optional[ssl.SSLContext] = None,
) -> Answer:
    """One HTTP request, never through a proxy of the environment; it does not raise."""
    data = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **(headers or {})} if data else dict(headers or {})
    try:
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection = _connection(url, timeout_s, tls)
    except ValueError as error:  # no address at all: a port above 65535, brackets
        return Answer(0, f"{url}: {error}", {})
    try:
        connection.request(method or ("POST" if data else "GET"), path or "/", data, sent)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        return Answer(answer.status, text, {k.lower(): v for k, v in answer.getheaders()})
    # UnicodeError: a host name with an empty or too long part, which nobody looks up.
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        return Answer(0, f"{type(error).__name__}: {error}" if str(error) else repr(error), {})
    finally:
        connection.close()


def _connection(
    url: str, timeout_s: float, tls: Optional[ssl.SSLContext]
) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=tls)
    return http.client.HTTPConnection(host, port, timeout=timeout_s)


def events(
    url: str,
    body: Any,
    *,
    timeout_s: float,
    headers: Optional[Mapping[str, str]] = None,
    tls: Optional[ssl.SSLContext] = None,
) -> Iterator[str]:
    """The data lines of a streamed answer (server-sent events), as they come.

    Raises OSError or http.client.HTTPException when the connection fails, ValueError when the
    status is not 200.
    """
    connection = _connection(url, timeout_s, tls)
    try:
        sent = {"Content-Type": "application/json", **(headers or {})}
        connection.request("POST", urlsplit(url).path, json.dumps(body).encode(), sent)
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(
                f"status {answer.status}: {answer.read(500).decode('utf-8', 'replace')}"
            )
        for raw in answer:
            line = raw.decode("utf-8", "replace").strip()
            if line.startswith("data:"):
                yield line[5:].strip()
    finally:
        connection.close()


def metric(text: str, name: Optional[str]) -> Optional[float]:
    """The sum of a metric over its series in Prometheus text; None when it is not there.

    name may carry labels that must match: name{label="value"}.
    """
    if not name:
        return None
    base, _, labels = name.partition("{")
    wanted = [label.strip() for label in labels.rstrip("}").split(",") if label.strip()]
    total: Optional[float] = None
    for line in text.splitlines():
        if line.startswith(base) and line[len(base) : len(base) + 1] in ("{", " "):
            series, _, value = line.rpartition(" ")
            if all(label in series for label in wanted):
                total = (total or 0.0) + float(value)
    return total
