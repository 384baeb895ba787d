"""Archives: equal input gives equal bytes, and only what differs is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hostkit.agent.unpack import differences, unpack
from omnikit.fleet import bundle

FILES = {"host.json": "{}\n", "p0/start.sh": "#!/usr/bin/env bash\n"}


def archive(folder: Path, files: dict[str, str]) -> Path:
    path = folder / "incoming.pyz"
    path.write_bytes(bundle.archive(files, {"host_agent.py": b"# code\n"}))
    return path


def test_equal_input_gives_equal_bytes() -> None:
    code = bundle.host_code()
    backwards = dict(reversed(list(FILES.items())))
    assert bundle.archive(FILES, code) == bundle.archive(backwards, code)


def test_files_go_to_their_places_and_a_second_time_nothing_happens(tmp_path: Path) -> None:
    path = archive(tmp_path, FILES)
    created = ("bundle/host.json", "bundle/p0/start.sh", "scripts/host_agent.py")
    assert differences(path, tmp_path) == dict.fromkeys(created, "create")
    assert unpack(path, tmp_path) is True
    script = tmp_path / "bundle" / "p0" / "start.sh"
    assert script.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "bundle" / "host.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "scripts" / "host_agent.py").read_text() == "# code\n"
    before = script.stat().st_mtime_ns
    assert unpack(path, tmp_path) is False
    assert script.stat().st_mtime_ns == before
    assert differences(path, tmp_path) == {}


def test_what_changed_is_replaced_and_strangers_go(tmp_path: Path) -> None:
    unpack(archive(tmp_path, FILES), tmp_path)
    path = archive(tmp_path, {"host.json": '{"new": 1}\n'})
    assert differences(path, tmp_path) == {
        "bundle/host.json": "change",
        "bundle/p0/start.sh": "remove",
    }
    assert unpack(path, tmp_path) is True
    assert not (tmp_path / "bundle" / "p0" / "start.sh").exists()


def test_python_runs_an_archive_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.pyz"
    path.write_bytes(bundle.archive({}, bundle.host_code()))
    done = subprocess.run([sys.executable, path, "look"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "no deployment is described here" in done.stderr
