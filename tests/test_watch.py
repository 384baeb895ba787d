"""invoke watch, on a deployment of stand-ins: one look, the terminal, and the page in a browser."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import pytest
import requests
from browser import browser
from docker_host import wait_for
from small_site import ROOT, Site, site

__all__ = ["site"]  # the fixture

# A deployment, a minute.
pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua", "chromium")]

ASK = {"model": "tiny", "prompt": "What happens?", "max_tokens": 8}
KEY = "watch-" + "k" * 30


def look(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.run("watch.py", "--json"))
    return found


def words_of(site: Site, *more: str) -> list[str]:
    return [sys.executable, "scripts/watch.py", "-e", str(site.folder / "small.yaml"), *more]


def test_one_look_has_states_addresses_and_events(site: Site) -> None:
    found = look(site)
    assert {one["name"]: one["state"] for one in found["instances"]} == dict.fromkeys(
        ("p0", "p1", "d0", "c0"), "ready"
    )
    assert (found["total"]["ready"], found["total"]["of"], found["error"]) == (4, 4, "")
    assert found["url"] == f"http://127.0.0.1:{site.port}" and found["doing"] is None
    assert {event["what"] for event in found["events"]} >= {"ready"}
    text = site.run("watch.py")  # no terminal: one look, and the end
    assert "4 of 4 serve" in text and "\x1b" not in text
    assert "4 of 4 serve" in site.run("status.py", "--watch")  # the name that it had before


@contextmanager
def terminal(site: Site, columns: int) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The view in a terminal of its own."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, columns))  # type: ignore[attr-defined]
    env = {**os.environ, **site.env, "TERM": "xterm-256color", "NO_COLOR": "1"}
    running = subprocess.Popen(
        words_of(site, "--set", "fleet.watch_s=0.3"),
        **{"cwd": ROOT, "env": env, "stdin": theirs, "stdout": theirs, "stderr": theirs},
        start_new_session=True,
    )  # type: ignore[call-overload]
    try:
        yield running, ours
    finally:
        running.kill()
        running.wait()
        os.close(ours)
        os.close(theirs)


def until(ours: int, wanted: str, seconds: float = 60) -> str:
    """What a terminal shows until a text is in it, without what moves the cursor."""
    data, end = b"", time.monotonic() + seconds
    while wanted.encode() not in data:
        assert select.select([ours], [], [], max(0, end - time.monotonic()))[0], data[-2000:]
        data += os.read(ours, 1 << 16)
    return data.decode()


@pytest.mark.parametrize("leave", ["q", "Ctrl-C"])
def test_in_a_terminal_it_shows_what_is_answered_now_and_leaves_nothing_behind(
    site: Site, leave: str
) -> None:
    with terminal(site, 100) as (running, ours):
        before = termios.tcgetattr(ours)
        shown = until(ours, "4 of 4 serve")
        assert "\x1b[?1049h" in shown  # a screen of its own
        rate = re.compile(r"\d(\.\d+)? requests/s   \d+(\.\d+)? tokens/s   first token 0 s")
        seen, end = "", time.monotonic() + 60
        while not rate.search(seen):
            assert time.monotonic() < end, seen[-3000:]
            requests.post(f"http://127.0.0.1:{site.port}/v1/completions", json=ASK, timeout=30)
            seen += until(ours, "requests/s   ")
        if leave == "q":
            os.write(ours, b"q")
        else:
            os.kill(running.pid, signal.SIGINT)
        assert "\x1b[?1049l" in until(ours, "\x1b[?1049l")
        assert running.wait(timeout=30) == 0
        assert termios.tcgetattr(ours)[3] == before[3]


def test_it_tells_what_a_deploy_does_and_how_long_such_a_one_takes(site: Site) -> None:
    deploying = site.start("deploy.py", "--set", "server.env.VERSION=two", "--yes")
    found: dict[str, Any] = {}

    def is_doing() -> bool:
        found.update(look(site))
        return bool(found["doing"] and found["doing"]["said"])

    try:
        wait_for(is_doing, "a deploy is seen", 60)
    finally:
        said = deploying.communicate(timeout=300)[0]
    assert deploying.returncode == 0, said
    doing = found["doing"]
    assert doing["what"].startswith("deploy") and doing["about_s"] > 0
    assert doing["said"][-1] in said
    assert look(site)["doing"] is None


@contextmanager
def page(site: Site, *more: str) -> Iterator[str]:
    """The page's address."""
    running = subprocess.Popen(
        words_of(site, "--set", "fleet.watch_s=0.3", *more),
        cwd=ROOT,
        env={**os.environ, **site.env},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stderr is not None
        yield running.stderr.readline().split()[0]
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=30) == 0
    finally:
        running.kill()
        running.wait()
        running.stderr.close()


def test_the_page_follows_what_happens_in_a_browser(site: Site, tmp_path: Path) -> None:
    with page(site, "--web", "127.0.0.1:0") as address, browser(tmp_path) as shown:

        def says(text: str) -> None:
            wait_for(lambda: text in shown.value("document.body.innerText"), text, 60)

        for width in (400, 1300):
            shown.open(address, width)
            wait_for(
                lambda: "4 of 4 serve" in shown.value("document.body.innerText"), "it serves", 60
            )
            assert shown.value("document.documentElement.scrollWidth") <= width
        os.kill(site.pid("d0"), signal.SIGKILL)
        says("3 of 4 serve")
        assert shown.value("document.querySelectorAll('.card.bad').length") == 1
        assert shown.value("document.title").startswith("! ")
        site.deploy("two")
        says("4 of 4 serve")
        assert "started" in shown.value("document.getElementById('events').innerText")
        bad = [one for one in shown.events if one.get("method") == "Log.entryAdded"]
        assert bad == [], "the browser complains of nothing"


def test_the_page_only_shows_and_is_open_to_nobody_else(site: Site, tmp_path: Path) -> None:
    with page(site, "--web", "127.0.0.1:0") as address:
        for path in ("", "look.json"):
            assert requests.get(address + path, timeout=30).status_code == 200
            elsewhere = {"Host": "evil.example"}
            assert requests.get(address + path, headers=elsewhere, timeout=30).status_code == 403
        assert requests.get(f"{address}../configs/defaults.yaml", timeout=30).status_code == 404
        for method in ("POST", "PUT", "DELETE"):
            assert requests.request(method, address, timeout=30).status_code == 501
    keys = tmp_path / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"ann: {KEY}\n")
    told = ("--set", f"proxy.api_keys={{file: {keys}}}")
    with page(site, "--web", "0.0.0.0:0", *told) as address:
        url = address.replace("0.0.0.0", "127.0.0.1") + "look.json"
        assert requests.get(url, timeout=30).status_code == 401
        for key, status in ((f"x{KEY}", 401), (KEY, 200)):
            headers = {"Authorization": f"Bearer {key}"}
            assert requests.get(url, headers=headers, timeout=30).status_code == status


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("0.0.0.0:7080", "proxy.api_keys names none"),
        ("everywhere", "is no address and port"),
        ("127.0.0.1:99999", "is no address and port"),
        ("192.0.2.9:7080", "proxy.api_keys names none"),
    ],
)
def test_a_wrong_address_is_refused_with_the_way_out(site: Site, where: str, said: str) -> None:
    text = site.run("watch.py", "--web", where, code=2)
    assert said in text and "What to do" in text
