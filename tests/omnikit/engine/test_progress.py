"""Progress lines: short, and not more often than wanted."""

from __future__ import annotations

import threading

from omnikit.engine.progress import Progress

PIP = [
    "Collecting numpy==2.3.5 (from -r pins.txt (line 3))",
    "  Downloading numpy-2.3.5-cp311-cp311-manylinux_2_28_x86_64.whl (16.8 MB)",
    "Progress 1048576 of 17616076",
    "Progress 8388608 of 17616076",
    "Installing collected packages: numpy, six",
]


def test_each_line_of_pip_in_short() -> None:
    said: list[str] = []
    progress = Progress(said.append, interval_s=0)
    for line in PIP:
        progress.heard(line)
    assert [text.rpartition(" (")[0] for text in said] == [
        "engine: collecting numpy==2.3.5",
        "engine: downloading numpy-2.3.5 (16.8 MB)",
        "engine: downloading numpy-2.3.5: 1 of 16 MiB",
        "engine: downloading numpy-2.3.5: 8 of 16 MiB",
        "engine: installing",
    ]


def test_lines_within_the_interval_are_held_back() -> None:
    said: list[str] = []
    progress = Progress(said.append, interval_s=3600)
    progress.step("fetching")
    for line in PIP * 100:
        progress.heard(line)
    assert said == ["engine: fetching (0 s)"]


def test_lines_are_kept_for_an_error_message_without_the_portions() -> None:
    progress = Progress(lambda text: None, interval_s=3600)
    for line in PIP:
        progress.heard(line)
    assert progress.lines == [PIP[0], PIP[1], PIP[4]]


def test_a_silent_step_is_still_seen_to_move() -> None:
    heard = threading.Event()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if "3 of 9" in text:
            heard.set()

    progress = Progress(say, interval_s=0.01)
    progress.step("installing")
    with progress.watched(lambda: "3 of 9 packages there"):
        assert heard.wait(10)
    assert said[0] == "engine: installing (0 s)"


def test_each_line_begins_with_what_is_being_made() -> None:
    said: list[str] = []
    progress = Progress(said.append, interval_s=0, name="control")
    progress.step("building")
    progress.doing("copying")
    assert [line.rsplit(" (", 1)[0] for line in said] == ["control: building", "control: copying"]
