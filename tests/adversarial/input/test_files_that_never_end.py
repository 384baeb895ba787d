"""A pipe, a socket or a device that somebody names as a file is refused by name, at once; a file
that is larger than any of its kind is not read. That holds for pipes of the shell, <(command), too:
settings are read several times.
"""

from __future__ import annotations

import importlib
import os
import socket
import struct
from pathlib import Path
from typing import Iterator

import pytest

from hostkit.files import regular

pytestmark = pytest.mark.timeout(120)  # no answer is what this is about


@pytest.fixture(params=["pipe", "socket", "device", "folder", "link to a pipe"])
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(what it is, where)"""
    kind, path = request.param, tmp_path / "named"
    opened = socket.socket(socket.AF_UNIX)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        opened.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to("pipe")
    with opened:
        yield kind.split()[-1], path


def test_the_reader_of_users_files(endless: tuple[str, Path]) -> None:
    kind, path = endless
    for read in (regular.opened, regular.data, regular.text, regular.parsed):
        with pytest.raises(OSError, match=f"it is a {kind}, expected a regular file"):
            read(path)


def test_a_file_larger_than_any_of_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="it is larger than 64 MiB"):
        regular.data(path)


COMMANDS = {
    "settings": ("config", "--config {}"),
    "an environment": ("config", "--environment {}"),
    "a file to import": ("import_config", "{} --dry-run"),
    "a file to replace": ("import_config", "{inventory} --force --out {}"),
    "a rank table": ("check_ranktable", "-e 2p1d --table {}"),
    "a rank table to merge": (
        "gen_ranktable",
        "--mode merge-local --local-ranktable-list {} --save-dir {new}",
    ),
    "a log": ("doctor", "--log {}"),
    "a proxy's configuration": ("launch_proxy", "--config-file {}"),
    "a record": ("timeline", "--record {}.jsonl"),
    "a result": ("benchmark_serving", "--compare {} --dry-run"),
    "a host's file": ("launch_servers", "--host-file {} --node x"),
    "a placement file": ("check_placement", "--file {} --devices 16"),
    "checksums": ("download_weights", "--source {folder} --target {new} --checksums {}"),
}


@pytest.mark.parametrize("endless", ["pipe", "device"], indirect=True)
@pytest.mark.parametrize("what", COMMANDS)
def test_every_option_that_names_a_file(
    what: str, endless: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = endless[1]
    (tmp_path / "folder").mkdir()
    inventory = Path(__file__).parents[2] / "foreign" / "omni_infer_inventory_used_for_2P1D.yml"
    script, words = COMMANDS[what]
    places = {"folder": tmp_path / "folder", "new": tmp_path / "new", "inventory": inventory}
    if what == "a record":
        path.with_name("named.jsonl").symlink_to(path.name)
    argv = [word.format(path, **places) for word in words.split()]

    code = importlib.import_module(script).main(argv)
    said = capsys.readouterr().err
    assert code == 2, (code, said)


@pytest.mark.parametrize("endless", ["link to a pipe", "device"], indirect=True)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "a.safetensors"])
def test_every_file_of_a_checkpoint(
    name: str, endless: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import verify_weights

    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "a.safetensors"}}')
    (folder / "a.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    (folder / name).unlink()
    (folder / name).symlink_to(endless[1])
    assert verify_weights.main(["--target", str(folder)]) in (1, 2)
    capsys.readouterr()


@pytest.mark.parametrize("files", [None, [], {"h": None}, {"h": {"a": 1}}, "x", 5])
def test_a_kept_release_of_a_wrong_shape(files: object, tmp_path: Path) -> None:
    """`files: null` in a release was a traceback of the rollback."""
    import json

    from hostkit.base.errors import InputError
    from omnikit.config import config, report
    from omnikit.runs import releases

    now = config.load("local", (), (), {})
    text = report.without_secrets(now)
    (tmp_path / "local.yaml").write_text(text)
    (tmp_path / "files.json").write_text(json.dumps({"files": files, "proxy_kind": None}))
    with pytest.raises(InputError, match=r"release 1 is damaged") as caught:
        releases.restored(releases.Release(1, tmp_path, {}), now)
    assert caught.value.exit_code == 2
