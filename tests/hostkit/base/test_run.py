"""Starting processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError
from hostkit.base.health import wait_until
from hostkit.base.records import alive, identity


def test_output_and_status_come_back() -> None:
    done = run.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")


def test_a_failure_shows_the_command_and_its_last_words() -> None:
    with pytest.raises(ActionError, match="exit status 3 from: sh -c") as caught:
        run.run(["sh", "-c", "echo because >&2; exit 3"])
    assert "because" in str(caught.value)


def test_a_missing_program_is_the_users_to_install() -> None:
    for call in (run.run, lambda w: run.stream(w, print)):
        with pytest.raises(InputError, match="no-such-program"):
            call(["no-such-program"])


def test_a_command_that_hangs_is_ended() -> None:
    with pytest.raises(ActionError, match=r"no answer within 0\.1 s"):
        run.run(["sleep", "60"], timeout=0.1)


def test_lines_of_several_commands_come_with_their_index() -> None:
    seen: list[tuple[int, str]] = []
    commands = [["sh", "-c", "echo a; printf b"], ["sh", "-c", "echo c >&2; exit 4"]]
    assert run.stream_all(commands, lambda i, line: seen.append((i, line))) == [0, 4]
    assert sorted(seen) == [(0, "a"), (0, "b"), (1, "c")]


def test_a_streamed_command_reads_a_file_or_nothing(tmp_path: Path) -> None:
    seen: list[str] = []
    (tmp_path / "text").write_text("one\ntwo\n")
    assert run.stream(["cat"], seen.append, stdin=tmp_path / "text") == 0
    assert run.stream(["cat"], seen.append) == 0
    assert seen == ["one", "two"]


def test_an_interrupt_ends_the_whole_group(tmp_path: Path) -> None:
    children: list[dict] = []

    def stop(line: str) -> None:
        children.append(identity(int(line)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stream(["sh", "-c", "sleep 60 & echo $!; wait"], stop)
    assert wait_until(lambda: not alive(children[0]), 10, 0.02)


@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]))))
def test_a_shown_command_means_the_same_to_a_shell(words: list[str]) -> None:
    import shlex

    assert shlex.split(run.show(["x", *words])) == ["x", *words]


def test_a_tied_child_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys; from hostkit.base import run;"
        "c = run.start(['sleep', '60'], output=subprocess.DEVNULL, tied=True);"
        "print(c.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    env = {"PYTHONPATH": str(Path(run.__file__).parents[2])}
    done = run.run([sys.executable, "-c", code], env=env, check=False)
    who = identity(int(done.out))
    assert wait_until(lambda: not alive(who), 10, 0.02)
    assert done.code == -9 and os.getpid() > 0


def test_a_line_that_is_redrawn_is_handed_on_each_time() -> None:
    code = "print('a\\r\\n\\r1%\\r\\r2%', end='\\n'); print('end\\r', end='')"
    lines: list[str] = []
    run.stream([sys.executable, "-c", code], lines.append, redrawn=True)
    assert [line for line in lines if line] == ["a", "1%", "2%", "end"]
    whole: list[str] = []
    run.stream([sys.executable, "-c", code], whole.append)
    assert whole == ["a", "\r1%\r\r2%", "end"]
