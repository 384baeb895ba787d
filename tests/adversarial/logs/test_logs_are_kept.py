"""No start, no rotation and nobody who tidies up loses a line that a server wrote.

A start adds to the logs, and only what it wrote counts for it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any, Iterator

import pytest
from host_cases import ROLES, a_host, a_node, clean, processes, record_of, running
from needs import needs

from hostkit.base.health import request, wait_until
from hostkit.base.records import alive
from hostkit.logs import symptoms as logs_symptoms
from hostkit.nodes import observe, start_stop

# Real processes, seconds together.
pytestmark = pytest.mark.slow


def say(host: dict[str, Any], *numbers: int) -> None:
    """Have the first server print numbered lines."""
    url = host["nodes"][0]["servers"][0]["url"]
    for number in numbers:
        assert request(f"{url}/say/{number}", timeout_s=20).status == 200


def said(*paths: Path) -> list[int]:
    """The numbers of whole lines in these logs, in their order."""
    text = "".join(path.read_text() for path in paths)
    return [int(number) for number in re.findall(r"^say (\d+) .*\n", text, re.MULTILINE)]


def arrived(log: Path, *numbers: int) -> bool:
    return wait_until(lambda: said(log)[-len(numbers) :] == list(numbers), 30, 0.02)


def test_every_start_adds_to_the_logs(tmp_path: Path) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "d0", ""))
    log = Path(host["nodes"][0]["servers"][0]["log"])
    launcher = log.with_name("launcher.log")
    for start in range(3):
        with running(host):
            say(host, start)
            if not start:
                launcher.write_text("what an earlier supervisor said\n")
    assert said(log) == [0, 1, 2]
    assert len(re.findall(r"^\[omnikit: d0.0 starts, ", log.read_text(), re.MULTILINE)) == 3
    assert launcher.read_text().startswith("what an earlier supervisor said\n")


def test_only_this_start_counts_for_what_is_said_of_a_failure(tmp_path: Path) -> None:
    node = a_node(tmp_path, "d0", "exit-after=0.2 ready-after=60")
    host = a_host(tmp_path, node)
    log = Path(node["servers"][0]["log"])
    log.parent.mkdir(parents=True)
    before = "torch.OutOfMemoryError: NPU out of memory, of an earlier start\n" * 30
    log.write_text(before)
    log.with_name("launcher.log").write_text("error: of an earlier start\n")
    try:
        start_stop.up(host, ROLES)
        verdict, nodes = observe.wait(host, ROLES, 120)
        assert verdict == "failed"
        tail = nodes[0]["servers"][0]["tail"]
        assert "the stand-in ends as told" in tail
        assert not any("earlier" in line for line in tail)
        asked = {"work_dir": str(tmp_path), "tail_bytes": 10**6, "ready_tail_bytes": 10**6}
        [symptoms] = logs_symptoms.symptoms(asked)["nodes"]
        end = symptoms["servers"][0]["log_end"]
        assert end["lines"] == ["the stand-in ends as told", "the stand-in listens"]
        assert end["first_line"] == 32  # lines are counted as an editor does
        (tmp_path / "bundle" / "host.json").write_text("{")
        with pytest.raises(Exception, match="could not be started") as failed:
            start_stop.up(host, ROLES)
        assert "earlier" not in str(failed.value)
    finally:
        clean(host)


@pytest.mark.parametrize("how", ["copytruncate", "create"])
def test_what_logrotate_does_loses_nothing_and_is_gone_on_after(tmp_path: Path, how: str) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "d0", ""))
    log = Path(host["nodes"][0]["servers"][0]["log"])
    with running(host):
        say(host, *range(20))
        assert arrived(log, 19)
        aside = tmp_path / "aside.log"
        if how == "copytruncate":
            shutil.copy(log, aside)
            os.truncate(log, 0)
        else:
            log.rename(aside)
        say(host, *range(20, 40))
        assert wait_until(lambda: log.exists(), 30, 0.02) and arrived(log, 39)
        assert said(aside, log) == list(range(40))
        assert b"\0" not in log.read_bytes()  # no hole where the old lines were
        # What counts for this start is all that is left.
        token = record_of(host, "d0")["servers"][0]["token"]
        assert "say 20 " in observe.tail(log, 500, token)[0]


def test_logs_are_kept_by_size_and_number_without_losing_a_line(tmp_path: Path) -> None:
    keep = {"bytes": 20_000, "files": 4}
    host = a_host(tmp_path, a_node(tmp_path, "d0", ""), logs=keep)
    log = Path(host["nodes"][0]["servers"][0]["log"])
    launcher = log.with_name("launcher.log")
    with running(host):
        server = record_of(host, "d0")["servers"][0]["process"]
        say(host, *range(40))  # 1,2 kB each: two files
        assert arrived(log, 39)
        older = [log.with_name(f"{log.name}.{number}") for number in (3, 2, 1)]
        there = [path for path in older if path.exists()]
        assert there and said(*there, log) == list(range(40))
        say(host, *range(40, 200))
        assert arrived(log, 199)
        assert sorted(path.name for path in log.parent.glob("server_0*")) == sorted(
            [log.name, *(path.name for path in older)]
        )
        launcher.write_text("x" * 20_001)
        kept = said(*older, log)
        assert kept == list(range(kept[0], 200)) and len(kept) > 40
        assert all(path.stat().st_size <= 20_000 for path in [*older, log])
        assert alive(server)  # and it was not started again
    with running(host):
        assert launcher.with_name("launcher.log.1").stat().st_size == 20_001


@pytest.fixture(params=["open", "closed"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder that nginx's workers, who are not root, can enter, and one that they cannot."""
    if request.param == "closed":
        yield tmp_path
        return
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_nginx_writes_on_into_new_logs(folder: Path) -> None:
    """What a server writes itself is put aside by its own means."""
    needs("nginx")
    closed, tmp_path = "pytest" in str(folder), folder
    run_dir, logs = tmp_path / "temp" / "c0", tmp_path / "logs" / "c0"
    node = a_node(tmp_path, "c0", "", role="proxy")
    [server] = node["servers"]
    seed = tmp_path / "bundle" / "c0"
    seed.mkdir(parents=True)
    logs.mkdir(parents=True)
    (seed / "nginx.conf").write_text(
        f'daemon off;\npid {run_dir}/nginx.pid;\nerror_log "{logs}/error.log" warn;\nevents {{}}\n'
        f'http {{\n access_log "{logs}/access.log" combined;\n'
        f" server {{ listen 127.0.0.1:{server['port']}; location / {{ return 200; }} }} }}\n"
    )
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    server.update(argv=[nginx, "-p", f"{run_dir}/", "-c", f"{run_dir}/nginx.conf"], model=None)
    node.update(seed_dir=str(seed), files={"nginx.conf": ""})
    with running(a_host(tmp_path, node, logs={"bytes": 2_000, "files": 3})):
        asked = 0

        def one_more() -> bool:
            nonlocal asked
            asked += 1
            assert request(f"{server['url']}/say/{asked}", timeout_s=20).status == 200
            aside = logs / "access.log.1"
            return aside.exists() and (logs / "access.log").exists() and asked > 100

        assert wait_until(one_more, 60, 0.05)
        one_more()
        last = f"/say/{asked}"
        assert wait_until(lambda: last in (logs / "access.log").read_text(), 30, 0.05)
        text = "".join(path.read_text() for path in logs.glob("access.log*"))
        # A copy may miss a line that comes while the log is emptied.
        assert asked - closed <= len(re.findall(r"/say/\d+", text)) <= asked


def test_a_hangup_ends_nothing(tmp_path: Path) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "d0", "", ""))
    log = Path(host["nodes"][0]["servers"][0]["log"])
    with running(host):
        record = record_of(host, "d0")
        everyone = [record["supervisor"], record["log_writer"]]
        everyone += [server["process"] for server in record["servers"]]
        for _ in range(3):
            for one in everyone:
                os.kill(one["pid"], signal.SIGHUP)
        say(host, 1)
        assert arrived(log, 1)
        assert all(map(alive, everyone))
        assert observe.observe(host, "d0")["state"] == "ready"
        assert record_of(host, "d0") == record


def test_the_last_words_of_servers_whose_supervisor_was_killed_are_kept(tmp_path: Path) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "d0", "last-words"))
    log = Path(host["nodes"][0]["servers"][0]["log"])
    with running(host):
        record = record_of(host, "d0")
        os.kill(record["supervisor"]["pid"], signal.SIGKILL)
        assert wait_until(lambda: not processes(record), 30, 0.02)
        assert wait_until(lambda: "these are the last words" in log.read_text(), 30, 0.02)
        assert wait_until(lambda: not alive(record["log_writer"]), 30, 0.02)


def test_who_writes_the_logs_is_started_again_and_no_line_is_lost(tmp_path: Path) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "d0", ""))
    log = Path(host["nodes"][0]["servers"][0]["log"])
    with running(host):
        say(host, 1)
        assert arrived(log, 1)
        before = record_of(host, "d0")["log_writer"]
        os.kill(before["pid"], signal.SIGKILL)
        say(host, 2)
        assert arrived(log, 2)
        assert wait_until(lambda: record_of(host, "d0")["log_writer"] != before, 60, 0.1)
        assert said(log) == [1, 2]
