"""The script convert_weights.py as a person runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Optional

import pytest
from docker_host import wait_for

from omnikit.weights.loadable import small_deepseek as small

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
SCRIPT = str(ROOT / "scripts" / "convert_weights.py")


def convert(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, SCRIPT, *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.make().write(tmp_path_factory.mktemp("weights") / "source", shards=9)


@pytest.fixture(scope="module")
def whole(source: Path) -> Path:
    target = source.with_name("whole")
    done = convert("--source", source, "--target", target)
    assert done.stdout == f"{target}: converted\n"
    assert "9 files" in done.stderr and "converted in" in done.stderr
    return target


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_second_run_changes_nothing(source: Path, whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    done = convert("--source", source, "--target", whole, "--json")
    assert json.loads(done.stdout)["result"] == "unchanged"
    assert {path: path.stat().st_mtime_ns for path in whole.iterdir()} == before


def test_a_dry_run_tells_sizes_time_and_actions_and_does_nothing(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    done = convert("--source", source, "--target", target, "--dry-run")
    assert "64 tensors quantised, 4 tensors widened to bf16" in done.stdout
    assert "copy 2 files as they are" in done.stdout and "68 block scales" in done.stdout
    assert "time: about " in done.stdout and "would be converted" in done.stdout
    assert not list(tmp_path.iterdir())
    found = json.loads(
        convert("--source", source, "--target", target, "--dry-run", "--json").stdout
    )
    assert found["needed_bytes"] >= found["target_bytes"] > found["source_bytes"] > 6_000_000
    assert found["estimate"]["rate"] > 1e6 and found["threads"] >= 1
    assert found["tensors"]["quantised"] == 64 and found["files_to_do"] == 9
    assert found["files_copied"] == ["configuration_deepseek.py", "tokenizer_config.json"]
    assert found["actions"][-1] == f"rename {target}.incomplete to {target}"


@pytest.mark.parametrize("records", [0, 2, 5])
def test_killed_at_any_moment_the_next_run_ends_with_the_same_bits(
    source: Path, whole: Path, tmp_path: Path, records: int
) -> None:
    target, work = tmp_path / "target", tmp_path / "target.incomplete"
    words = [sys.executable, SCRIPT, f"--source={source}", f"--target={target}", "--threads=1"]
    running = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def reached() -> bool:
        assert running.poll() is None, "it was over before it could be killed"
        return (work / ".records").is_dir() and len(list(work.glob("*.safetensors"))) >= records

    while not reached():
        time.sleep(0.0002)  # a whole run writes for some ten milliseconds
    running.kill()
    assert running.wait() == -signal.SIGKILL and not target.exists()
    assert convert("--source", source, "--target", target).stdout.endswith("converted\n")
    assert content(target) == content(whole) and not work.exists()


@pytest.mark.parametrize(
    ("moment", "anew"),
    [
        ("config.json", False),
        ("omnikit-weights.json", False),
        ("target", False),  # all is done, but for its name
        ("after target", None),
    ],
)
def test_killed_between_the_last_steps_nothing_is_done_twice_or_left(
    source: Path, whole: Path, tmp_path: Path, moment: str, anew: Optional[bool]
) -> None:
    target = tmp_path / "target"
    words = ["--source", str(source), "--target", str(target)]
    helper = ROOT / "tests" / "kit" / "killed_conversion.py"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    killed = subprocess.run([sys.executable, helper, moment, *words], env=env, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert target.exists() == (anew is None)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.safetensors")}
    assert len(before) == 9
    done = convert(*words, "--json")
    assert json.loads(done.stdout)["result"] == ("unchanged" if anew is None else "converted")
    assert content(target) == content(whole)
    after = {path.name: path.stat().st_mtime_ns for path in target.glob("*.safetensors")}
    assert after == before
    assert not target.with_name("target.incomplete").exists()


def test_an_interrupt_leaves_what_is_done_and_no_half_files(source: Path, tmp_path: Path) -> None:
    target, work = tmp_path / "target", tmp_path / "target.incomplete"
    words = [sys.executable, SCRIPT, f"--source={source}", f"--target={target}", "--threads=1"]
    running = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: (work / ".records").is_dir(), "the conversion has begun")
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130 and "Traceback" not in said
    assert not target.exists() and not list(work.glob("*.part"))
    convert("--source", source, "--target", target)


def test_a_bf16_source_works_too(tmp_path: Path) -> None:
    made = small.opened(small.make(seed=2)).write(tmp_path / "bf16")
    convert("--source", made, "--target", tmp_path / "target", "--threads", 3)
    done = subprocess.run(
        [
            *(sys.executable, "scripts/verify_weights.py", "--all", "--json"),
            *(f"--source={made}", f"--target={tmp_path / 'target'}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["quantised"] == 64


def test_source_and_target_are_settings(source: Path, tmp_path: Path) -> None:
    words = [f"weights.source={source}", f"model.path={tmp_path / 'model'}"]
    done = convert(*(f"--set={word}" for word in words))
    assert done.stdout == f"{tmp_path / 'model'}: converted\n"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "weights.source: no source is named"),
        (["--source=/no/such"], "/no/such: there is no such folder"),
        (["--source={source}", "--target={source}"], "the target lies in the source"),
        (["--source={source}", "--target={occupied}"], "was not made here"),
        (["--source={occupied}"], "config.json: is missing"),
        (["--source={source}", "--threads=0"], "'0' is no whole number above 0"),
        (["--source={source}", "--threads=many"], "'many' is no whole number above 0"),
        (["--source={source}", "--threads=1025"], "1025 is more than 1024"),
        (["--source="], "--source: is empty"),
        (["--source={source}", "--target="], "--target: is empty"),
        (["--source=~nosuch/model"], "there is no user ~nosuch"),
        (["--source={source}", "--target={notes}/t"], "Not a directory"),
        (["--source={source}", "--target={notes}/t", "--dry-run"], "Not a directory"),
    ],
)
def test_wrong_input_is_refused_with_what_to_do(
    source: Path, tmp_path: Path, words: list[str], what: str
) -> None:
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "notes.txt").write_text("mine")
    notes = tmp_path / "occupied" / "notes.txt"
    places = {"source": source, "occupied": tmp_path / "occupied", "notes": notes}
    given = [word.format(**places) for word in words]
    if not any("--target" in word for word in given):
        given.append(f"--target={tmp_path / 'target'}")
    done = convert(*given, code=2)
    assert what in done.stderr
    assert not (tmp_path / "target").exists()
    assert [path.name for path in (tmp_path / "occupied").iterdir()] == ["notes.txt"]


def test_the_folder_one_is_in_can_be_the_target(source: Path, whole: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    words = [sys.executable, SCRIPT, f"--source={source}", "--target=."]
    done = subprocess.run(words, cwd=here, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == (f"{here}: converted\n", 0), done.stderr
    assert content(here) == content(whole)


@pytest.mark.parametrize("mib", [1, 4])
def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    source: Path, tmp_path: Path, mib: int
) -> None:
    from image_cases import mount_small_disk
    from needs import needs

    needs("mount", root=True)
    disk = tmp_path / "disk"
    mount_small_disk(disk, mib)
    words = ["--source", source, "--target", disk / "target"]
    try:
        for more in ([], ["--dry-run"], ["--dry-run", "--json"]):
            done = convert(*words, *more, code=2)
            assert f"8.7 MiB more, {mib}.0 MiB are free" in done.stderr
            assert "free some space" in done.stderr and not list(disk.iterdir())
        assert json.loads(done.stdout)["result"] == "not enough space"
        shown = convert(*words, "--dry-run", code=2).stdout
        assert "source: 6.6 MiB; result: 8.7 MiB" in shown and "quantised" in shown
        assert ("time: not measured" if mib == 1 else "time: about") in shown
        assert shown.endswith("target: not enough space\n")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_on_a_read_only_disk_sizes_are_shown_and_then_why_not(source: Path, tmp_path: Path) -> None:
    from image_cases import mount_small_disk
    from needs import needs

    needs("mount", root=True)
    disk = tmp_path / "disk"
    mount_small_disk(disk, 50)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    words = ["--source", source, "--target", disk / "target"]
    try:
        done = convert(*words, "--dry-run", code=2)
        assert "result: 8.7 MiB" in done.stdout and "rename " in done.stdout
        assert done.stdout.endswith("target: cannot be converted\n")
        for said in (done.stderr, convert(*words, code=2).stderr):
            assert "Read-only file system" in said and "mount it writable" in said
    finally:
        subprocess.run(["umount", str(disk)], check=True)
