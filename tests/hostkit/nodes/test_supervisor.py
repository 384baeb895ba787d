"""What the supervisor does by itself when a server dies after its node was ready."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from host_cases import a_host, a_node, processes, record_of, running, write

from hostkit.base import lock
from hostkit.base.health import wait_until
from hostkit.base.records import alive, locked, read_record
from hostkit.nodes import history, needed, observe, start_stop

# Real processes, seconds together.
pytestmark = pytest.mark.slow

RULE = {"delay_s": 0.05, "delay_max_s": 0.1, "limit": 2, "settled_s": 600}
LATER = {**RULE, "delay_s": 3600, "delay_max_s": 3600}


def host_of(folder: Path, rule: dict[str, Any], *servers: str, **more: Any) -> dict[str, Any]:
    return a_host(folder, {**a_node(folder, "d0", *servers), "restart": rule}, **more)


def kill(host: dict[str, Any], number: int = 0) -> None:
    os.kill(record_of(host, "d0")["servers"][number]["process"]["pid"], signal.SIGKILL)


def comes(host: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    """The record of d0 once it says this; of restarts, their number."""

    def there() -> bool:
        found = record_of(host, "d0")
        found["restarts"] = found.get("restarts", {}).get("count", 0)
        return all(found[key] == value for key, value in wanted.items())

    assert wait_until(there, 60, 0.02), record_of(host, "d0")
    return record_of(host, "d0")


def told(host: dict[str, Any]) -> list[str]:
    """What the host's history says happened, in order."""
    found = history.read({"work_dir": host["work_dir"], "most": 100})
    return [event["what"] for event in found["events"]]


def test_a_death_starts_all_of_the_node_again(tmp_path: Path) -> None:
    with running(host_of(tmp_path, RULE, "child", "")) as host:
        before = record_of(host, "d0")
        files = Path(f"/proc/{before['supervisor']['pid']}/fd")
        opened = len(list(files.iterdir()))
        kill(host, 1)
        now = comes(host, phase="ready", restarts=1)
        assert not processes(before)  # the other one, and its deaf child, are gone as well
        assert now["supervisor"] == before["supervisor"]
        assert "reason" not in now
        assert now["restarts"]["why"] == "d0.1 ended with exit status -9"
        first, second = ([s["token"] for s in one["servers"]] for one in (before, now))
        assert not set(first) & set(second)
        assert [server["state"] for server in observe.observe(host, "d0")["servers"]] == [
            *("ready", "ready")
        ]
        log = Path(now["servers"][0]["log"])
        assert wait_until(lambda: log.read_text().count("the stand-in listens") == 2, 10, 0.02)
        assert all(token in log.read_text() for token in (first[0], second[0]))
        assert start_stop.up(host, {"prefill"}) == {"d0": "unchanged"}
        assert len(list(files.iterdir())) == opened  # nothing of the first start is left open
    assert told(host) == ["started", "ready", "died", "restarted", "ready", "stopped"]


def test_hooks_are_told_also_of_a_death_though_all_that_is_below_is_ended(tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = f'cat > /dev/null; echo "$OMNIKIT_EVENT_WHAT" >> {out}'
    hooks = {"command": ["sh", "-c", line], "timeout_s": 60}
    host = host_of(tmp_path, RULE, "child")
    (tmp_path / "bundle" / history.HOOKS).write_text(json.dumps(hooks))
    with running(host):
        kill(host)
        comes(host, phase="ready", restarts=1)
    wanted = sorted(["started", "ready", "died", "restarted", "ready", "stopped"])
    assert wait_until(lambda: sorted(out.read_text().split()) == wanted, 60, 0.02), told(host)


def test_too_often_is_a_crash_loop_which_a_deploy_ends(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    with running(host_of(tmp_path, RULE, f"broken={broken}", "")) as host:
        broken.touch()
        kill(host)
        found = comes(host, phase="failed")
        why = "d0.0 ended with exit status 1, after 2 restarts in a row; there is no other"
        assert found["reason"] == f"crash loop: {why}"
        assert wait_until(lambda: told(host)[-1] == "crash-loop", 10, 0.02)
        assert told(host)[:-1] == ["started", "ready", *["died", "restarted"] * 2]
        assert found["restarts"]["count"] == 2 and not processes(found)
        state, [node] = observe.wait(host, {"prefill"}, 5)
        assert state == "failed" and "the stand-in is broken" in node["servers"][0]["tail"]
        assert wait_until(lambda: needed.look(host) == {"d0": "start"}, 10, 0.02)
        broken.unlink()
        assert start_stop.up(host, {"prefill"}) == {"d0": "started"}
        assert "restarts" not in comes(host, phase="ready")


def test_while_it_waits_it_is_starting_and_says_why_and_can_be_ended(tmp_path: Path) -> None:
    with running(host_of(tmp_path, LATER, "", "")) as host:
        kill(host)
        found = comes(host, phase="starting")
        assert found["reason"] == (
            "d0.0 ended with exit status -9; restart 1 of at most 2 in a row, after 3600 s"
        )
        assert not processes(found)
        assert observe.wait(host, {"prefill"}, 0)[0] == "starting"
        assert start_stop.up(host, {"prefill"}) == {"d0": "unchanged"}
        assert start_stop.stop(host) == {"d0": "stopped"}
        assert not alive(found["supervisor"])


def test_one_that_has_settled_begins_to_count_anew(tmp_path: Path) -> None:
    with running(host_of(tmp_path, {**RULE, "limit": 1, "settled_s": 1e-6}, "")) as host:
        for count in (1, 2, 3):
            kill(host)
            comes(host, phase="ready", restarts=count)


def test_the_first_start_is_none_to_be_repeated(tmp_path: Path) -> None:
    host = host_of(tmp_path, RULE, "exit-after=0.2 status=7 ready-after=60")
    try:
        start_stop.up(host, {"prefill"})
        assert "restarts" not in comes(host, phase="failed")
        assert wait_until(lambda: told(host) == ["started", "failed"], 10, 0.02)
    finally:
        start_stop.stop(host)


def test_a_restart_that_does_not_get_ready_counts_as_a_death(tmp_path: Path) -> None:
    refuses = tmp_path / "refuses"
    with running(host_of(tmp_path, {**RULE, "limit": 1}, f"refuses={refuses}")) as host:
        refuses.touch()
        kill(host)
        found = comes(host, phase="failed")
        assert found["reason"].startswith("crash loop: runs, and refuses us: status 401")
        assert found["restarts"]["count"] == 1 and not processes(found)


def test_the_rule_is_that_of_the_host_file_now(tmp_path: Path) -> None:
    with running(host_of(tmp_path, RULE, "", "")) as host:
        del host["nodes"][0]["restart"]
        write(host)
        kill(host)
        found = comes(host, phase="failed")
        assert "reason" not in found
        assert alive(found["servers"][1]["process"])


def test_what_was_deployed_since_is_not_started_by_itself(tmp_path: Path) -> None:
    with running(host_of(tmp_path, RULE, "", "")) as host:
        host["nodes"][0]["digest"] = "another"
        write(host)
        kill(host)
        found = comes(host, phase="failed")
        assert "differs from what ran" in found["reason"]
        assert alive(found["servers"][1]["process"])


def test_a_proxy_keeps_what_it_took_over(tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    seed.mkdir()
    (seed / "nginx.conf").write_text("planned")
    host = host_of(tmp_path, RULE, "")
    host["nodes"][0]["seed_dir"] = str(seed)
    write(host)
    with running(host):
        taken_over = Path(host["nodes"][0]["temp_dir"]) / "nginx.conf"
        taken_over.write_text("since then")
        kill(host)
        comes(host, phase="ready", restarts=1)
        assert taken_over.read_text() == "since then"


def test_a_server_that_hangs_is_as_one_that_died(tmp_path: Path) -> None:
    with running(host_of(tmp_path, {**RULE, "watchdog_s": 0.1}, "", "")) as host:
        hung = record_of(host, "d0")["servers"][1]["process"]["pid"]
        os.kill(hung, signal.SIGSTOP)
        now = comes(host, phase="ready", restarts=1)
        assert re.fullmatch(r"d0.1 has not answered /health for \d+ s", now["restarts"]["why"])
        assert not Path(f"/proc/{hung}").exists()


def test_an_engine_that_hangs_is_as_one_that_died(tmp_path: Path) -> None:
    rule = {**RULE, "watchdog_s": 0.1, "steps": "vllm:steps"}
    with running(host_of(tmp_path, rule, "steps=5")) as host:
        why = comes(host, restarts=1)["restarts"]["why"]
        assert re.fullmatch(r"d0.0 has requests and has computed nothing for \d+ s", why)


def test_a_killed_supervisor_has_a_successor(tmp_path: Path) -> None:
    with running(host_of(tmp_path, RULE, "child", "deaf")) as host:
        for count in (1, 2):
            before = record_of(host, "d0")
            os.kill(before["supervisor"]["pid"], signal.SIGKILL)
            now = comes(host, phase="ready", restarts=count)
            assert not processes(before)
            assert now["supervisor"] != before["supervisor"]
            assert now["restarts"]["why"] == "its supervisor was killed"
            assert start_stop.up(host, {"prefill"}) == {"d0": "unchanged"}
        os.kill(now["supervisor"]["pid"], signal.SIGKILL)
        assert comes(host, phase="failed")["reason"].startswith("crash loop: its supervisor was")
        assert told(host)[:5] == ["started", "ready", "died", "restarted", "ready"]


def test_a_killed_supervisor_has_none_where_the_rule_is_another(tmp_path: Path) -> None:
    with running(host_of(tmp_path, RULE, "")) as host:
        changed = json.loads(json.dumps(host))
        changed["nodes"][0]["digest"] = "another"
        write(changed)
        os.kill(record_of(host, "d0")["supervisor"]["pid"], signal.SIGKILL)
        found = comes(host, phase="failed")
        assert "was deployed since differs" in found["reason"] and not processes(found)


def test_a_supervisor_that_is_stopped_by_force_has_no_successor(tmp_path: Path) -> None:
    with running(host_of(tmp_path, RULE, "")) as host:
        supervisor = record_of(host, "d0")["supervisor"]
        with locked(tmp_path / lock.FLOCK, "the test"):
            os.kill(supervisor["pid"], signal.SIGKILL)
            launcher = tmp_path / "logs" / "d0" / "launcher.log"
            assert wait_until(lambda: successors(tmp_path) != [], 10, 0.02), launcher.read_text()
            start_stop.stop(host)
        assert wait_until(lambda: successors(tmp_path) == [], 10, 0.02)
        assert read_record(tmp_path / "state", "d0") is None


def successors(folder: Path) -> list[str]:
    """Processes that would take over below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode().split("\0")
            if "--take-over" in words[-2:] and str(folder) in " ".join(words):
                found += [path.parent.name] if "launch_servers" in words[1] else []
    return found


def parts(folder: Path, *names: str) -> list[dict[str, Any]]:
    """Hosts that have a part of one instance each, all called d0."""
    rule = {**RULE, "delay_s": 8, "delay_max_s": 8}
    nodes = {}
    for name in names:
        (folder / name).mkdir()
        nodes[name] = a_node(folder / name, "d0", "")
    for name, node in nodes.items():
        others = [(o, n["servers"][0]) for o, n in nodes.items() if o != name]
        places = [[other, server["address"], server["port"]] for other, server in others]
        node["restart"] = {**rule, "partners": places}
    return [a_host(folder / name, node) for name, node in nodes.items()]


def test_when_a_part_of_an_instance_has_gone_all_start_again(tmp_path: Path) -> None:
    hosts = parts(tmp_path, "h0", "h1", "h2")
    with ExitStack() as up:
        for host in hosts:
            up.enter_context(running(host))
        kill(hosts[1])
        port = hosts[1]["nodes"][0]["servers"][0]["port"]
        for host in hosts:
            comes(host, phase="ready", restarts=1)
        assert record_of(hosts[1], "d0")["restarts"]["why"] == "d0.0 ended with exit status -9"
        for host in (hosts[0], hosts[2]):
            why = record_of(host, "d0")["restarts"]["why"]
            assert re.fullmatch(r"its part h\d \(127.0.0.1:\d+\) has gone", why)
        # Who sees it first names the one that died, another one maybe who saw it first.
        said = [record_of(host, "d0")["restarts"]["why"] for host in hosts]
        assert any(f"h1 (127.0.0.1:{port})" in why for why in said)

        def restarts() -> list[int]:
            return [record_of(host, "d0")["restarts"]["count"] for host in hosts]

        # That all start again, at different times, tears nobody down once more.
        assert not wait_until(lambda: restarts() != [1, 1, 1], 6, 0.2)


def test_a_part_that_a_command_ends_takes_no_other_with_it(tmp_path: Path) -> None:
    hosts = parts(tmp_path, "h0", "h1")
    with running(hosts[0]), running(hosts[1]):
        before = record_of(hosts[0], "d0")
        changes = partial(wait_until, lambda: record_of(hosts[0], "d0") != before)
        assert not changes(3, 0.2)  # it has seen the other one meanwhile
        held = tmp_path / "h0" / lock.LOCK
        held.write_text(json.dumps({"owner": "ann", "what": "stop of test", "since": 1.0}))
        start_stop.stop(hosts[1])
        # Looks of which two would be enough, were there no command.
        assert not changes(7, 0.2)
        held.unlink()
        assert wait_until(lambda: record_of(hosts[0], "d0").get("restarts"), 20, 0.2)
