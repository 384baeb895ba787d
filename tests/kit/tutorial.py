"""Walks a chapter of docs/tutorials.md: its commands as they are written, in a terminal, in order.

A ```sh block is one or more commands; the lines of a ```text block after it must each appear in
what they say, with … for anything (one that says "exit status N" has it that they end so; else all
end well). A comment before a block marks it: <!-- not run: why --> or <!-- second terminal -->; the
latter runs on to the chapter's end. Variables and folder stay from block to block.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Mapping, Optional, Sequence

ROOT = Path(__file__).resolve().parents[2]
DOCS = {name: ROOT / "docs" / f"tutorials{name}.md" for name in ("", ".zh-CN")}
PASSWORD = "s3cret!"
_PARTS = re.compile(
    r"^(?P<level>##+) (?P<title>[^\n]+)$|^<!-- (?P<mark>[^\n]+) -->$"
    r"|^```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()].|[=>78MDE])")
# What a person does at these words, behind which those of another process may stand already. The
# view of invoke watch is left when it shows something.
_ANSWERS = (
    (re.compile(r"\[y/N\] "), "y\n"),
    (re.compile(r"password of [^\n]*?: "), f"{PASSWORD}\n"),
    (re.compile(r"\x1b\[\?1049h(?!.*\x1b\[\?1049l).* serve .*", re.DOTALL), "q"),
)


@dataclass
class Step:
    """A block of commands. section: the number of its ### heading in the chapter, from 0 (none)."""

    commands: str
    mark: str
    section: int
    expected: list[str] = field(default_factory=list)


def chapters(language: str = "") -> dict[int, list[Step]]:
    """The blocks of each chapter, by its number."""
    found: dict[int, list[Step]] = {}
    number, section, mark = 0, 0, ""
    for part in _PARTS.finditer(DOCS[language].read_text(encoding="utf-8")):
        if part["level"] == "##":
            number, section = int(part["title"].partition(".")[0]), 0
            found[number] = []
        elif part["level"]:
            section += 1
        elif part["mark"]:
            mark = part["mark"]
        elif part["kind"] == "sh":
            found[number].append(Step(part["text"], mark, section))
            mark = ""
        else:
            assert part["kind"] == "text" and not found[number][-1].expected, part["text"]
            found[number][-1].expected = part["text"].splitlines()
    return found


@dataclass
class Walk:
    """One who follows a chapter. folder: what the shell keeps; env: besides this process's own;
    addresses: those of the document, as patterns, and what they are here.
    """

    steps: Sequence[Step]
    folder: Path
    env: Mapping[str, str]
    addresses: Sequence[tuple[str, str]] = ()
    limit_s: float = 180
    at: int = 0
    second: Optional[subprocess.Popen[bytes]] = None

    def run(
        self, until: str = "", before: Mapping[tuple[int, int], Callable[[], object]] = {}
    ) -> None:
        """Take the steps that are left; until: not from the one with this command on. before: what
        happens to the world before a step, by its section and its place there (from 0).
        """
        try:
            while self.at < len(self.steps):
                step = self.steps[self.at]
                if until and until in step.commands.splitlines():
                    return
                own = [one for one in self.steps[: self.at] if one.section == step.section]
                before.get((step.section, len(own)), lambda: None)()
                self._take(step)
                self.at += 1
            if self.second is not None:
                assert self.second.poll() is None, "what ran in the second terminal has ended"
        finally:
            if self.second is not None and (self.at == len(self.steps) or not until):
                os.killpg(self.second.pid, signal.SIGKILL)
                self.second.wait()

    def _take(self, step: Step) -> None:
        if step.mark.startswith("not run: "):
            return
        commands = self.here(step.commands)
        if step.mark == "second terminal":
            self.second = subprocess.Popen(
                ["bash", "-c", commands], cwd=ROOT, env=self._env(), start_new_session=True
            )
            return
        assert step.mark == "", step.mark
        said, code = self._terminal(commands)
        lines = [" ".join(line.split()) for line in _ESCAPES.sub("", said).split("\n")]
        lines += [f"exit status {code}"] if code else []
        wanted = [" ".join(self.here(line).split()) for line in step.expected]
        assert code == 0 or lines[-1] in wanted, f"{commands}\n{said}\nexit status {code}"
        for line in wanted:
            pattern = ".*".join(re.escape(part) for part in line.split("…"))
            # Invoke hands on what a command says and what it reports by two threads: a line of one
            # may stand right behind that of the other.
            there = any(re.search(pattern, one) for one in lines)
            assert there, f"nothing like {line!r} in what came of\n{commands}\n" + "\n".join(lines)

    def here(self, text: str) -> str:
        """With the addresses of this world."""
        for pattern, address in self.addresses:
            text = re.sub(pattern, address, text)
        return text

    def _env(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "TERM": "xterm", **self.env}

    def _terminal(self, commands: str) -> tuple[str, int]:
        """What they say in a terminal of their own, and the exit status of the one that failed."""
        kept = self.folder / "shell"
        script = self.folder / "commands.sh"
        script.write_text(
            f'[ ! -e {kept} ] || . {kept}\ncd "${{WALKED:-$PWD}}"\nset -e\n{commands}'
            f'export WALKED="$PWD"\nexport -p >{kept}\n'
        )
        ours, theirs = pty.openpty()
        os.set_inheritable(theirs, True)
        subprocess.run(["stty", "rows", "50", "cols", "160"], stdin=theirs, check=True)
        running = subprocess.Popen(
            ["setsid", "--ctty", "--wait", "bash", str(script)],
            cwd=ROOT,
            env=self._env(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        try:
            return self._converse(ours, commands), running.wait(timeout=self.limit_s)
        finally:
            running.kill()
            running.wait()
            os.close(ours)

    def _converse(self, ours: int, commands: str) -> str:
        """Answer what is asked, to the end."""
        said, answered, ends = "", 0, time.monotonic() + self.limit_s
        while select.select([ours], [], [], max(0.0, ends - time.monotonic()))[0]:
            try:
                data = os.read(ours, 65536)
            except OSError:  # the last of them has closed it
                return said
            said += data.decode("utf-8", "replace").replace("\r\n", "\n")
            for pattern, answer in _ANSWERS:
                if found := pattern.search(said, answered):
                    answered = found.end()
                    os.write(ours, answer.encode())
        raise AssertionError(f"it does not end:\n{commands}\n{said}")
