"""The live view as a small page that only shows: on the loopback, or with the proxy's keys."""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
import secrets
import socket
import ssl
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Optional

from hostkit.base.errors import InputError
from hostkit.base.log import say, speaks, words
from omnikit.access import targets
from omnikit.config.config import Config
from omnikit.config.layers import PROJECT
from omnikit.front.chinese import catalogue
from omnikit.monitor.look import Looker, Snapshot

PAGE = PROJECT / "templates" / "watch.html"
_ASKS_S = 10  # of a client that says nothing
_SAID = ("error", "why", "what", "result", "said")  # in a look
_STATES = ("ready", "starting", "stopped", "failed", "unreachable")
_RULES = "default-src 'none'; connect-src 'self'; script-src 'nonce-{0}'; style-src 'nonce-{0}'"


def place(text: str) -> tuple[str, int]:
    """Address and port of --web. Raises InputError."""
    address, _, port = text.rpartition(":")
    try:
        number = int(port)
        if not 0 <= number < 65536:
            raise ValueError(port)
        return str(ipaddress.ip_address(address.strip("[]") or "127.0.0.1")), number
    except ValueError as error:
        raise InputError(
            f"{text!r} is no address and port.", where="--web", todo="for example 127.0.0.1:7080"
        ) from error


def phrases(text: str) -> list[str]:
    """What the page says itself."""
    return re.findall(r'\bt\("([^"]+)"', text)


def _worded(found: Any, key: str = "") -> Any:
    """A look in the words of whoever sees it. States are names, which the page says."""
    if isinstance(found, dict):
        return {name: _worded(one, name) for name, one in found.items()}
    if isinstance(found, list):
        return [_worded(one, key) for one in found]
    return words(found) if key in _SAID and isinstance(found, str) else found


class Page(ThreadingHTTPServer):
    """keys: one of them is wanted; none: everybody who reaches it may look."""

    daemon_threads = True

    def __init__(
        self, at: tuple[str, int], looker: Looker, interval_s: float, keys: list[str]
    ) -> None:
        if ":" in at[0]:
            self.address_family = socket.AF_INET6
        super().__init__(at, _Handler)
        self.looker, self.interval_s, self.keys = looker, interval_s, keys
        self.own = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self.looking = threading.Lock()
        self.found: Optional[Snapshot] = None

    def look(self) -> Snapshot:
        """One look for all who ask within the interval."""
        with self.looking:
            if self.found is None or time.time() - self.found["at"] >= self.interval_s:
                self.found = self.looker.look()
            return self.found


class _Handler(BaseHTTPRequestHandler):
    server: Page
    timeout = _ASKS_S
    server_version, sys_version = "omnikit", ""

    def do_GET(self) -> None:
        """The page, or a look."""
        if not self.server.keys and self.headers.get("Host") not in self.server.own:
            # A page of elsewhere whose name was made to lead here.
            self._say(403, {"error": "This page is open on the loopback only."})
        elif self.path == "/":
            nonce = secrets.token_urlsafe(16)
            text = PAGE.read_text(encoding="utf-8")
            text = text.replace("INTERVAL_MS", str(int(1000 * self.server.interval_s)))
            text = text.replace("WANTS_A_KEY", json.dumps(bool(self.server.keys)))
            known = catalogue() if speaks() else {}
            mine = {one: known[one] for one in (*phrases(text), *_STATES) if one in known}
            text = text.replace("THE_WORDS", json.dumps(mine))
            text = text.replace("LANGUAGE", "zh-Hans" if mine else "en")
            data = text.replace("NONCE", nonce).encode()
            self._answer(200, "text/html; charset=utf-8", data, nonce)
        elif self.path != "/look.json":
            self._say(404, {"error": "There is nothing."})
        elif not self._may():
            self._say(401, {"error": "A key of proxy.api_keys is wanted."})
        else:
            self._say(200, _worded(self.server.look()))

    def _may(self) -> bool:
        sent = self.headers.get("Authorization", "").rpartition(" ")[2].encode()
        equal = [hmac.compare_digest(sent, key.encode()) for key in self.server.keys]
        return not equal or any(equal)

    def _say(self, status: int, what: Any) -> None:
        self._answer(status, "application/json", json.dumps(what).encode())

    def _answer(self, status: int, kind: str, data: bytes, nonce: str = "") -> None:
        self.send_response(status)
        rules = _RULES.format(nonce) if nonce else "default-src 'none'"
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            "Content-Security-Policy": f"{rules}; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: who looks is no event."""


def opened(config: Config, looker: Looker, where: str) -> tuple[Page, str]:
    """The page, listening, and its address. Raises InputError."""
    at = place(where)
    settings, keys = config.settings, list[str]()
    if not ipaddress.ip_address(at[0]).is_loopback:
        keys = list(targets.named(settings).values())
        if not keys:
            raise InputError(
                f"beyond the loopback the page wants keys, and {targets.API_KEYS} names none.",
                where="--web",
                todo="set it (docs/security.md); or leave the page on the loopback, and go there by"
                " SSH: ssh -L 7080:127.0.0.1:7080 THIS-HOST",
            )
    try:
        page = Page(at, looker, settings.fleet.watch_s, keys)
    except OSError as error:
        raise InputError(
            f"{where}: {error.strerror}.", where="--web", todo="name another: --web ADDRESS:PORT"
        ) from error
    tls, scheme = settings.proxy.tls, "http"
    if keys and tls.certificate and tls.key:
        context, scheme = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "https"
        try:
            context.load_cert_chain(tls.certificate, tls.key)
        except OSError as error:
            page.server_close()
            raise InputError(
                f"the page is to speak TLS as the proxy does; no certificate here: {error}.",
                where="proxy.tls",
                todo="run this on the proxy's host, or leave the page on the loopback",
            ) from error
        page.socket = context.wrap_socket(
            page.socket, server_side=True, do_handshake_on_connect=False
        )
    shown = f"[{at[0]}]" if ":" in at[0] else at[0]
    return page, f"{scheme}://{shown}:{page.server_port}/"


def serve(config: Config, looker: Looker, where: str) -> int:
    """Serve the page until Ctrl-C."""
    page, address = opened(config, looker, where)
    with page, suppress(KeyboardInterrupt):
        say(f"{address} (end with Ctrl-C)")
        page.serve_forever()
    return 0
