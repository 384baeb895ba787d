"""What the toolkit says in Chinese: the catalogue is whole, and lines are said by it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import messages
import pytest
from babel.messages import pofile

from hostkit.base import log
from omnikit.front import chinese

ROOT = Path(__file__).resolve().parents[3]
HOLES = re.compile(r"\{\w+\}")


@pytest.fixture(scope="module")
def speaker() -> chinese.Speaker:
    return chinese.Speaker(chinese.catalogue())


def test_all_that_is_said_is_translated_and_nothing_else_stands_there() -> None:
    """Renew it: PYTHONPATH=scripts:tests/kit python3 tests/kit/messages.py"""
    kept = chinese.CATALOGUE.read_bytes()
    made = messages.renewed(pofile.read_po(io.BytesIO(kept)))
    assert [one.id for one in made if one.id and not one.string] == []
    assert messages.text_of(made) == kept


def test_what_is_compiled_is_read_again_but_not_what_others_may_have_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = tmp_path / "made" / "zh.mo"
    monkeypatch.setattr(chinese, "COMPILED", compiled)
    read = chinese.catalogue.__wrapped__  # nothing is remembered
    assert read() == chinese.catalogue() and compiled.is_file()
    with compiled.open("r+b") as file:
        data = file.read()
        file.seek(data.index("权重".encode()))
        file.write("假话".encode())
    assert "假话" in "".join(read().values())
    compiled.chmod(0o666)
    assert read() == chinese.catalogue() and compiled.stat().st_mode & 0o777 == 0o644
    compiled.write_bytes(b"no catalogue")
    assert read() == chinese.catalogue()


def test_translations_have_the_holes_of_what_they_translate() -> None:
    for english, said in chinese.catalogue().items():
        assert Counter(HOLES.findall(english)) == Counter(HOLES.findall(said)), english


def test_holes_that_touch_stay_together() -> None:
    """Where one ends and the next begins cannot be seen in a line."""
    for english, said in chinese.catalogue().items():
        for pair in re.findall(r"(?=(\{\d+\}\{\d+\}))", english):
            assert pair in said, english


def test_commands_and_keys_stay_as_they_are() -> None:
    """What a reader types is the same in both languages."""
    typed = re.compile(r"invoke [a-z][a-z-]+|--[a-z][a-z-]+|\b[a-z_]+\.[a-z_]+\.[a-z_]+\b")
    for english, said in chinese.catalogue().items():
        assert Counter(typed.findall(english)) == Counter(typed.findall(said)), english


KNOWN = {
    "host {0} is away": "主机 {0} 离线",
    "{0} does not answer: {1}": "{0} 没有应答：{1}",
    "mend {0}, then again": "修复 {0}，然后重试",
    "What to do: {0}": "处理：{0}",
    "nothing is wrong here.": "一切正常。",
    "Nobody knows of {0}.": "没有人知道 {0}。",
    "; or leave it so": "；或者保持不变",
    "deploy of {0}": "{0} 的部署",
    "{0} host": "{0} 台主机",
    "there is no {0} named {1}{2}": "没有这样的 {0}：{1}{2}",
    "(asked for as {0})": "（请求时的名称 {0}）",
    "ready": "就绪",
}


@pytest.mark.parametrize(
    ("english", "said"),
    [
        ("host p0 is away", "主机 p0 离线"),
        ("p1 does not answer: host p0 is away", "p1 没有应答：主机 p0 离线"),
        ("a.yaml:3: host p0 is away", "a.yaml:3: 主机 p0 离线"),
        ("error: a.yaml:3: host p0 is away", "error: a.yaml:3: 主机 p0 离线"),
        (
            "host p0 is away\n  What to do: mend a.b, then again",
            "主机 p0 离线\n  处理：修复 a.b，然后重试",
        ),
        ("nothing is wrong here. Nobody knows of x.", "一切正常。没有人知道 x。"),
        ("host a is away; host b is away", "主机 a 离线；主机 b 离线"),
        ("mend x, then again; or leave it so", "修复 x，然后重试；或者保持不变"),
        ("ready", "就绪"),
        ("deploy of local: ready", "local 的部署：就绪"),
        ("1 host", "1 台主机"),
        ("another host", "another host"),
        ("p0  ready  1 host", "p0  就绪  1 台主机"),
        ("a (ready)", "a（就绪）"),
        ("(ready)", "（就绪）"),
        ("(asked for as x)", "（请求时的名称 x）"),
        ("there is no host named p0", "没有这样的 host：p0"),
        # What we did not say.
        ("INFO 10:00:01 the engine is up", "INFO 10:00:01 the engine is up"),
        ("    host p0 is away", "    host p0 is away"),
        ("hosts/p0 is away", "hosts/p0 is away"),
        ("", ""),
        ("主机 p0 离线", "主机 p0 离线"),
    ],
)
def test_a_line_is_said_by_what_made_it(english: str, said: str) -> None:
    assert chinese.Speaker(KNOWN)(english) == said


def test_the_time_of_a_line_hides_nothing_of_it(speaker: chinese.Speaker) -> None:
    said = speaker("[  94.1 s] rank tables: 0 of 10 files changed")
    assert said == "[  94.1 s] ranktable：10 个文件中有 0 个变更"


def test_every_template_with_holes_filled_is_known_again(speaker: chinese.Speaker) -> None:
    """However like they are: what a template made is never said by another with less of its own."""
    for english, said in chinese.catalogue().items():
        if re.search(r"\{\d+\}", english) and said != english:
            filled = re.sub(r"\{\d+\}", "7", english.strip())
            assert speaker(filled) != filled, english


def test_it_costs_no_time(speaker: chinese.Speaker) -> None:
    """A long line that nobody of us made takes no more than a look at each template."""
    line = ("ia a oft the nut, tx: ix. fxr; " * 38).strip()
    assert speaker(line) == line


def test_tables_stay_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_speakers", [chinese.Speaker(KNOWN)])
    lines = log.table([["p0", "ready", "x"], ["p1", "failed", "x"]], ["host", "state", "y"])
    *_, first, second = lines.splitlines()
    assert (first, second) == ("p0    就绪    x", "p1    failed  x")


def run(*words: str, language: str = "zh", **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMNIKIT_LANGUAGE": language, **more}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, env=environment
    )


def test_an_error_of_a_script_is_said_in_chinese(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("ports: {proxy: eighty}\n")
    done = run("scripts/plan.py", "-e", str(file))
    assert done.returncode == 2
    assert f"{file}:1" in done.stderr and "处理办法：" in done.stderr
    assert "What to do" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "is_chinese"),
    [
        ({"OMNIKIT_LANGUAGE": "", "LC_ALL": "", "LC_MESSAGES": "", "LANG": "zh_CN.UTF-8"}, True),
        ({"OMNIKIT_LANGUAGE": "", "LC_ALL": "zh_CN.UTF-8", "LANG": "C.UTF-8"}, True),
        ({"OMNIKIT_LANGUAGE": "en", "LC_ALL": "zh_CN.UTF-8"}, False),
        ({"OMNIKIT_LANGUAGE": "", "LC_ALL": "C.UTF-8", "LANG": "zh_CN.UTF-8"}, False),
    ],
)
def test_the_language_is_the_variables_or_the_locales(
    variables: dict[str, str], is_chinese: bool
) -> None:
    done = run("scripts/plan.py", "-e", "nothing", language="", **variables)
    assert ("处理办法：" in done.stderr) is is_chinese


def test_what_a_program_reads_is_the_same_in_both() -> None:
    mine, english = (run("scripts/plan.py", "--json", language=one) for one in ("zh", "en"))
    assert json.loads(mine.stdout) == json.loads(english.stdout)
    assert mine.stdout.isascii() or mine.stdout == english.stdout


def test_the_list_of_tasks_is_that_of_the_manual() -> None:
    mine, english = (run("-m", "invoke", "--list", language=one).stdout for one in ("zh", "en"))
    named = [re.findall(r"^  ([a-z][a-z-]*)  ", text, re.MULTILINE) for text in (mine, english)]
    assert named[0] == named[1] and "部署：" in mine and "Deploy:" not in mine
    assert all(re.search("[\u4e00-\u9fff]", line) for line in mine.splitlines() if line)
