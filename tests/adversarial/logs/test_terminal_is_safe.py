"""What comes from elsewhere (logs, names, paths, answers) never moves, colours or turns a terminal.

Each command runs on a terminal of its own, by the script and by Invoke.
"""

from __future__ import annotations

import json
import os
import pty
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
EVIL = (
    "\x1b[2J\x1b[31mred\x1b]0;title\x07\x08\x0b\x0c\rover\x7f\x9b31m\x85"
    "\u202eright to left\u202c\u2066\u2069\u200f\u061c\u2028\ufeff\u200b\U000e0041"
)
# What a terminal may act on, or that hides: controls, marks of direction, tags, half characters.
RAW = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]|\r(?!\n)"
)


def on_terminal(*words: str, cwd: Path = PROJECT) -> str:
    """What a terminal gets when a command runs on it."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(words, stdout=theirs, stderr=theirs, cwd=cwd, start_new_session=True)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += (part := os.read(ours, 65536))
        except OSError:  # its last reader has gone
            break
        if not part:
            break
    os.close(ours)
    child.wait()
    # The terminal itself makes \r\n of every \n.
    return said.decode("utf-8", "surrogateescape")


def script(name: str, *options: str) -> list[str]:
    return [sys.executable, str(PROJECT / "scripts" / name), *options]


def safe(said: str, *wanted: str) -> None:
    assert not RAW.findall(said), ascii(said)
    for text in wanted:
        assert text in said, ascii(said)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(f"paths: {{work_dir: '{tmp_path}/work'}}\n")
    return path


@pytest.mark.parametrize("front", ["script", "invoke"])
def test_logs_are_shown_without_their_controls(tmp_path: Path, site: Path, front: str) -> None:
    log = tmp_path / "work" / "logs" / "p0" / "server_0.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(f"before {EVIL} after\n".encode() + b"\xff\xfe bytes\nprogress 1\rprogress 2\n")
    options = ["--environment", "local", "--config", str(site), "--instance", "p0"]
    words = script("logs.py", *options)
    if front == "invoke":
        words = [str(Path(sys.executable).with_name("invoke")), "logs", *options]
    said = on_terminal(*words)
    safe(said, "before ", "red", "right to left", " after", "progress 2")
    assert "\\u202e" in said and "\\u001b[2J" in said


def test_an_error_that_repeats_what_was_given_does_not_repeat_its_controls(tmp_path: Path) -> None:
    for given in (EVIL.replace("\0", ""), "/no\x1b[2J\u202e/folder"):
        safe(on_terminal(*script("config.py", "--set", f"model.{given}=1")), "error: ")
        safe(on_terminal(*script("config.py", "-e", given)), "error: ")
        safe(on_terminal(*script("config.py", f"--{given}")), "error: ")
        site = tmp_path / "site.yaml"
        site.write_text(json.dumps({"model": {given: 1}}))
        safe(on_terminal(*script("config.py", "--config", str(site))), "error: ")


def test_names_of_tensors_and_files_are_written_out(tmp_path: Path) -> None:
    folder = tmp_path / "model \x1b[31m\u202e"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": EVIL, "architectures": [EVIL]}))
    head = json.dumps({EVIL: {"dtype": "F8", "shape": [4], "data_offsets": [0, 9]}}).encode()
    (folder / "a\x1b[2J.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + b"1234")
    os.close(os.open(bytes(folder) + b"/\xff.safetensors", os.O_CREAT | os.O_WRONLY))
    target = ["--target", str(tmp_path / "made")]
    for words in (
        script("verify_weights.py", "--target", str(folder), "--source", str(folder)),
        script("prepare_checkpoint.py", "--dir", str(folder)),
        script("convert_weights.py", "--source", str(folder), *target, "--dry-run"),
    ):
        safe(on_terminal(*words), "error: ")


def test_what_is_a_controlling_text_only_for_terminals_stays_readable() -> None:
    from hostkit.base.log import shown

    for text in ("plain\ttext\n", "中文 naïve 🙂", "\\u001b already written out", "a\nb"):
        assert shown(text) == text
    assert shown("\x1b[1;31mred\x1b[0m") == "red"
    assert shown("\x1b\x1b[0m[2J") == "\\u001b[2J"  # what is left out makes nothing new
    for number in range(0x110000):
        if RAW.match(chr(number)):
            assert shown(chr(number)) != chr(number), hex(number)


def test_results_stay_json() -> None:
    """Text is written out so that JSON stays the same data."""
    from hostkit.base.log import shown

    for data in ({"a": EVIL}, [EVIL, "中文"]):
        for text in (json.dumps(data), json.dumps(data, ensure_ascii=False)):
            assert json.loads(shown(text)) == data
