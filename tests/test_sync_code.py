"""scripts/sync_code.py end to end: real hosts behind real SSH servers, real rsync."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
import sync_code
from code_cases import HOSTILE, commit, forget, listing, make_source, own_home
from ssh_fleet import Fleet, new_key, ssh_fleet

from hostkit.base.health import wait_until
from omnikit.source import sync

ROOT = Path(__file__).resolve().parents[1]
CODE = "/data/omni 'i\"nfer $x"
CD = f"cd {shlex.quote(CODE)}"
SETTINGS = """\
profile: {{engine: cpu, model: tiny-qwen2}}
engine: {{venv: /opt/engine}}
{hosts}
paths: {{work_dir: /data/omnikit, code_dir: {code}, local_code_dir: {source}}}
model: {{path: /data/model}}
topology: {{prefill: [{{hosts: [p0]}}], decode: [{{hosts: [d0]}}], proxy: p0}}
fleet: {{connect_timeout_s: 3}}
"""
pytestmark = [pytest.mark.slow, pytest.mark.needs("rsync", "ssh")]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with ssh_fleet(tmp_path_factory.mktemp("sync") / "fleet", ["p0", "d0"]) as hosts:
        yield hosts


class Case:
    """A source, an environment and the hosts, for one test."""

    def __init__(self, folder: Path, fleet: Fleet, capsys: Any) -> None:
        self.folder, self.fleet, self.capsys = folder, fleet, capsys
        self.source = make_source(folder / "source")
        self.environment = folder / f"{folder.name}.yaml"
        self.code = CODE
        self.write(fleet.settings())

    def write(self, hosts: str, **more: str) -> None:
        """The environment's file."""
        given = {"code": json.dumps(self.code), "source": str(self.source), **more}
        self.environment.write_text(SETTINGS.format(hosts=hosts, **given))

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """The script in this process: exit code, what it printed, what it said."""
        code = sync_code.main(["--environment", str(self.environment), *words])
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    def json(self, *words: str) -> dict[str, Any]:
        """The results by host, of a run that ends well."""
        code, out, err = self("--json", *words)
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def there(self, host: str) -> Path:
        """The copy on a host."""
        return self.fleet.hosts[host].path(self.code)

    def like(self, host: str) -> bool:
        """Whether the copy is the source, without what is left out."""
        out = (b"build/dist", b"omni/__pycache__", b"omni.egg-info", b".git")
        wanted = {
            path: one
            for path, one in listing(self.source).items()
            if not any(path == left or path.startswith(left + b"/") for left in out)
        }
        return listing(self.there(host)) == wanted


@pytest.fixture
def case(tmp_path: Path, fleet: Fleet, capsys, monkeypatch) -> Iterator[Case]:
    monkeypatch.setattr(sync, "control_folder", lambda environment: tmp_path / "control")
    with own_home(monkeypatch):
        try:
            yield Case(tmp_path, fleet, capsys)
        finally:
            for host in fleet.hosts:
                fleet.run(host, "rm -rf -- /data/*")


def test_first_unchanged_and_one_file_changed(case: Case) -> None:
    head = commit(case.source)
    for name in HOSTILE:
        (case.source / os.fsdecode(name)).write_text("x")
    would = case.json("--dry-run")
    assert would["p0"]["action"] == "would change" and not case.there("p0").exists()
    first = case.json()
    assert all(one["changed"] and one["bytes"] for one in first.values())
    assert first["d0"]["created"] == would["d0"]["created"] == 11 + len(HOSTILE)
    assert case.like("p0") and case.like("d0")
    record = json.loads((case.there("d0") / ".omnikit-code.json").read_text())
    assert record["complete"] and record["digest"] == first["d0"]["digest"]
    assert (record["revision"]["commit"], record["revision"]["dirty"]) == (head, True)
    code, out, _ = case()
    assert (code, out) == (0, "p0: unchanged\nd0: unchanged\n")
    (case.source / "omni" / "engine.py").write_text("speed = 2\n")
    for path in case.source.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    found = case.json()["p0"]
    assert (found["files"], found["needs"]["reinstall"]) == (["omni/engine.py"], False)
    assert found["bytes"] < 1000
    audit = case.fleet.run("p0", "cat /data/omnikit/audit.jsonl").stdout.splitlines()
    assert len(audit) == 2 and not case.fleet.hosts["p0"].path("/data/omnikit/deploy.lock").exists()


def test_deleted_files_changed_modes_and_what_the_host_has_besides(case: Case) -> None:
    case.json()
    case.fleet.run("p0", f"{CD}; mkdir -p .venv build/dist; touch .venv/a build/dist/h.whl")
    (case.source / "omni" / "old.py").unlink()
    (case.source / "omni" / "csrc" / "kernel.cpp").chmod(0o600)
    found = case.json()
    assert (found["p0"]["deleted"], found["p0"]["updated"], found["d0"]["deleted"]) == (1, 1, 1)
    assert found["p0"]["needs"]["rebuild"] and case.like("d0")
    assert (case.there("p0") / ".venv" / "a").exists()
    assert (case.there("p0") / "build" / "dist" / "h.whl").exists()
    assert case.json()["p0"]["changed"] is False


def test_a_change_on_one_host_is_put_right_there_alone(case: Case) -> None:
    case.json()
    case.fleet.run("d0", f"{CD}; echo evil > omni/engine.py; touch stray")
    found = case.json("--verify")
    assert found["p0"]["action"] == "unchanged" and found["d0"]["updated"] == 1
    assert case.like("d0")


def test_a_strange_folder_and_a_host_that_is_off_stop_nobody_else(case: Case) -> None:
    case.fleet.run("p0", "mkdir -p '/data/strange'; echo mine > /data/strange/mine.txt")
    case.code = "/data/strange"
    case.write(case.fleet.settings())
    code, out, err = case()
    assert code == 1 and out.startswith("d0: 11 created")
    assert "nothing says that it is a copy of ours: 1 entries, the first: mine.txt" in err
    assert (case.there("p0") / "mine.txt").read_text() == "mine\n"
    assert case()[0] == 2  # nothing was changed this time
    assert case("--replace")[0] == 0 and case.like("p0")
    forget(Path.home())  # or the dead connection would be tried first
    case.fleet.link("p0", up=False)
    try:
        (case.source / "omni" / "engine.py").write_text("speed = 2\n")
        code, out, err = case()
    finally:
        case.fleet.link("p0", up=True)
    assert code == 1 and out.startswith("d0: 0 created, 1 updated")
    assert "p0" in err and "cannot be reached" in err and "try it by hand: ssh " in err
    assert case.json()["p0"]["changed"] is True


def test_the_wrong_key_and_the_wrong_host_key(case: Case) -> None:
    stranger = case.folder / "stranger"
    new_key(stranger)
    case.write(case.fleet.settings().replace(str(case.fleet.key), str(stranger), 1))
    code, _, err = case("--host", "p0")
    assert code == 1 and "does not let this user in" in err and "setup-keys" in err
    changed = case.folder / "known_hosts"
    lines = case.fleet.known_hosts.read_text().splitlines()
    mixed = [
        line.split()[0] + " " + " ".join(other.split()[1:])
        for line, other in zip(lines, reversed(lines))
    ]
    changed.write_text("\n".join(mixed) + "\n")
    case.write(case.fleet.settings().replace(str(case.fleet.known_hosts), str(changed)))
    code, _, err = case("--host", "p0")
    # The connection of a way to log in that was proven is kept; this is another file of keys.
    assert code == 1 and "its host key is not the recorded one" in err


def test_a_host_without_rsync_and_one_with_a_full_disk(case: Case) -> None:
    case.fleet.run("p0", "mv /usr/bin/rsync /usr/bin/rsync.away")
    case.fleet.run("d0", "mkdir -p /data/small && mount -t tmpfs -o size=1m tmpfs /data/small")
    case.code = "/data/small/code"
    case.write(case.fleet.settings())
    try:
        (case.source / "large").write_bytes(os.urandom(2 << 20))
        code, _, err = case()
        assert code == 2 and "host p0: rsync is not installed on this host" in err
        assert "host d0: /data/small/code: the disk is too full: 2.0 MiB are needed, 1.0 MiB" in err
        (case.source / "large").unlink()
        (case.source / "many").mkdir()
        for number in range(400):
            (case.source / "many" / str(number)).write_text("x")  # takes a page each
        code, _, err = case("--host", "d0")
        assert code == 1 and "the disk is full" in err and "MiB were free before" in err
        assert not case.fleet.hosts["d0"].path("/data/omnikit/deploy.lock").exists()
    finally:
        case.fleet.run("p0", "mv /usr/bin/rsync.away /usr/bin/rsync")
        case.fleet.run("d0", "umount /data/small")


def begun(case: Case, *words: str) -> subprocess.Popen[str]:
    """The script as a process of its own."""
    script = [sys.executable, str(ROOT / "scripts" / "sync_code.py"), *words]
    script += ["--environment", str(case.environment)]
    return subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(pid: int) -> list[int]:
    """Every process below one."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *children(int(child))]
    return found


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@pytest.mark.parametrize("how", ["rsync", "all of it", "network"])
def test_a_transfer_that_is_cut_goes_on(case: Case, how: str) -> None:
    case.json("--host", "p0")
    for number in range(40):
        (case.source / f"large{number}").write_bytes(os.urandom(4 << 20))
    started = begun(case, "--host", "p0", "--set", "sync.stall_s=2")
    try:
        half = case.there("p0") / ".~tmp~"
        created = case.there("p0")

        def under_way() -> bool:
            assert started.poll() is None, "the transfer was over too soon"
            return half.exists() or any(created.glob(".large*")) or any(created.glob("large*"))

        assert wait_until(under_way, 30, 0.002)
        if how == "network":
            case.fleet.link("p0", up=False)
        elif how == "all of it":
            started.kill()
        else:
            for pid in children(started.pid):
                if command(pid).startswith("rsync"):
                    os.kill(pid, signal.SIGKILL)
        out, err = started.communicate(timeout=60)
    finally:
        started.kill()
        started.wait()
        case.fleet.link("p0", up=True)
    assert out == "" and "Traceback" not in err
    if how != "all of it":
        assert started.returncode == 1 and "p0" in err and "sync again" in err
    record = json.loads((created / ".omnikit-code.json").read_text())
    assert record["complete"] is False
    if how == "all of it":  # its rsync and ssh end with it
        assert wait_until(
            lambda: not any(
                str(case.source) in command(int(p.name)) and "rsync" in command(int(p.name))
                for p in Path("/proc").glob("[0-9]*")
            ),
            10,
            0.05,
        )
    assert wait_until(lambda: case("--host", "p0")[0] == 0, 60, 0.2)
    assert case.like("p0") and not half.exists()
    assert case.json("--host", "p0")["p0"]["action"] == "unchanged"


def test_an_interrupt_ends_the_transfers(case: Case) -> None:
    for number in range(40):
        (case.source / f"large{number}").write_bytes(os.urandom(4 << 20))
    started = begun(case)
    try:
        assert wait_until(lambda: any(case.there("d0").glob(".large*")), 30, 0.002)
        started.send_signal(signal.SIGTERM)
        _, err = started.communicate(timeout=60)
    finally:
        started.kill()
        started.wait()
    assert started.returncode == 130 and "Traceback" not in err
    for host in ("p0", "d0"):
        assert not case.fleet.hosts[host].path("/data/omnikit/deploy.lock").exists()
    case.json()
    assert case.like("p0") and case.like("d0")


def test_a_source_that_is_edited_meanwhile_is_said_and_mended(case: Case) -> None:
    for number in range(20):
        (case.source / f"large{number}").write_bytes(os.urandom(4 << 20))
    started = begun(case, "--host", "p0")
    try:
        assert wait_until(lambda: any(case.there("p0").glob(".large*")), 30, 0.002)
        for name in ("large9", "setup.py"):
            (case.source / name).write_text("edited\n")
        _, err = started.communicate(timeout=60)
    finally:
        started.kill()
        started.wait()
    assert started.returncode == 1 and "was the source, or were these files, edited" in err, err
    case.json("--host", "p0")
    assert case.like("p0")


def test_somebody_else_who_changes_the_host_is_left_alone(case: Case) -> None:
    case.json()
    lock = '{"owner": "bob@there:/opt", "what": "deploy", "since": 1}'
    case.fleet.run("p0", f"echo '{lock}' > /data/omnikit/deploy.lock")
    (case.source / "omni" / "engine.py").write_text("speed = 2\n")
    code, out, err = case()
    assert code == 2 and "bob@there:/opt is changing this host" in err
    assert out == "" and not case.like("d0")  # all of them, or none


def test_a_password_from_a_file_logs_in(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sync, "control_folder", lambda environment: tmp_path / "control")
    (tmp_path / "password").write_text("open 'se\"same\n")
    given = {"password": "open 'se\"same", "authorized": False}
    with own_home(monkeypatch), ssh_fleet(tmp_path / "fleet", ["p0", "d0"], **given) as fleet:
        case = Case(tmp_path, fleet, capsys)
        hosts = fleet.settings().replace(
            f"user: root, private_key: {fleet.key},",
            f"user: root, password: {{file: {tmp_path}/password}},",
        )
        case.write(hosts)
        assert all(one["changed"] for one in case.json().values()) and case.like("d0")
        (tmp_path / "password").write_text("wrong\n")
        monkeypatch.setenv("HOME", str(tmp_path))  # no connection is kept from before
        code, _, err = case("--host", "p0")
        assert code == 1 and "does not let this user in" in err and "wrong" not in err


def test_help_and_mistakes(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "sync_code.py")]
    done = subprocess.run([*script, "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("usage: sync_code.py ")
    for word in ("--host", "--replace", "--verify", "--dry-run", "--json", "exit codes"):
        assert word in done.stdout
    words = ["--environment", "2p1d", "--host", "nobody", "--set", "paths.local_code_dir=/x"]
    words += ["--dry-run"]  # else its addresses would be said to be an example's
    done = subprocess.run([*script, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "there is no host 'nobody'" in done.stderr
