"""What the toolkit says, in Chinese for those who read it.

Texts are English where they are made, on every host, in files and in JSON. They become Chinese
where a person is shown them: a line that a template of the catalogue (locale/zh/omnikit.po) made is
said as its translation, and what fills its holes likewise. Any other line stays as it is: commands,
files, what other programs said.
"""

from __future__ import annotations

import gettext
import os
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple

from hostkit.base.writing import written

PROJECT = Path(__file__).resolve().parents[3]
CATALOGUE = PROJECT / "locale" / "zh" / "omnikit.po"
COMPILED = PROJECT / "build" / "locale" / "zh.mo"
# What stands between texts of which each was made by itself.
_BETWEEN = {": ": "：", "; ": "；", ". ": "。", ", ": "，", "  ": "  ", " (": "（"}
_HOLE = re.compile(r"\{(\d+)\}")
_GAP = re.compile(r"(?<=[\u3001-\u9fff\uff01-\uff1f]) (?=[\u3001-\u9fff\uff01-\uff1f])")
_WORD = re.compile("[A-Za-z]+")
_STAMP = re.compile(r"^\[ *[\d.]+ s\] ")  # when a deployment said it
_TWO = re.compile("[:;.] ")  # stands between two
_FOREIGN = " " * 4  # how far lines of other programs are moved in
_LONGEST = 1200  # a line of ours
_SPLITS, _DEEPEST = 12, 4  # where a line is taken apart, and how often


class _Form(NamedTuple):
    """A template with holes."""

    english: str
    chinese: str


@cache
def catalogue() -> Mapping[str, str]:
    """The translation of each template. It is compiled once, where that can be kept."""
    try:
        there, source = COMPILED.stat(), CATALOGUE.stat()
        # Others may write to build/ where many use one clone; what is said is not theirs to choose.
        own = there.st_uid in (os.getuid(), source.st_uid) and not there.st_mode & 0o022
        if own and there.st_mtime_ns > source.st_mtime_ns:
            return _read(COMPILED)
    except (OSError, UnicodeError, ValueError):
        pass  # not there, or not whole: it is made anew
    import io

    from babel.messages import mofile, pofile  # late: once only

    with CATALOGUE.open("rb") as file:
        known = pofile.read_po(file)
    made = io.BytesIO()
    mofile.write_mo(made, known)
    try:
        COMPILED.parent.mkdir(parents=True, exist_ok=True)
        with written(COMPILED) as beside:
            beside.write_bytes(made.getvalue())
            beside.chmod(0o644)
    except OSError:
        pass  # a folder of somebody else's: compiled again next time
    return {str(one.id): str(one.string) for one in known if one.id}


def _read(path: Path) -> Mapping[str, str]:
    with path.open("rb") as file:
        known: dict[str, str] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    return {english: chinese for english, chinese in known.items() if english}


class _Said(NamedTuple):
    """A text in Chinese. left: how many letters of it nobody could say."""

    text: str
    left: int


class Speaker:
    """Says lines in Chinese. known: the translation of each template."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self.whole = {one: said for one, said in known.items() if not _HOLE.search(one)}
        forms = [_Form(*one) for one in known.items() if one[0] not in self.whole]
        often = Counter(word for form in forms for word in _own(form.english))
        # By the rarest of its words: a line without that was not made by it.
        self.forms: dict[str, list[_Form]] = {}
        for form in forms:
            rarest = min(_own(form.english), key=lambda word: (often[word], word), default="")
            self.forms.setdefault(rarest, []).append(form)
        self.said = cache(self._said)

    def __call__(self, text: str) -> str:
        """A text of some lines."""
        return "\n".join(map(self._line, text.split("\n")))

    def _line(self, line: str) -> str:
        if line.startswith(_FOREIGN) or len(line) > _LONGEST or not _WORD.search(line):
            return line
        core = _STAMP.sub("", line.strip())
        said = self.said(core, _DEEPEST).text
        if said != core and said.endswith("."):  # of the last hole
            said = said[:-1] + "。"
        return line.replace(core, said)

    def _said(self, text: str, deeper: int) -> _Said:
        """A text without space around it, in the way that leaves least of it unsaid.

        deeper: how often it may be taken apart.
        """
        if text in self.whole:
            return _Said(self.whole[text], 0)
        best = _Said(text, sum(map(len, _WORD.findall(text))))
        if not best.left or not deeper:
            return best
        label, colon, rest = text.partition(": ")
        if colon and label in self.whole:
            said, left = self.said(rest, deeper)
            labelled = _Said(f"{self.whole[label]}：{said}", left)
            if not left:
                return labelled
            best = min(best, labelled, key=lambda one: one.left)
        for one in (*self._by_forms(text, deeper - 1), *self._by_parts(text, deeper - 1)):
            if one.left < best.left:
                best = one
        return best

    def _by_forms(self, text: str, deeper: int) -> Iterator[_Said]:
        there = {"", *_WORD.findall(text)}
        forms = [form for word in there & self.forms.keys() for form in self.forms[word]]
        apart = "  " in text  # columns, each said by itself
        for form in sorted(forms, key=lambda one: (-len(one.english), one.english)):
            if apart and "  " not in form.english:
                continue
            if found := _pattern(form.english).fullmatch(text):
                holes = {name: self._hole(hole, deeper) for name, hole in found.groupdict().items()}
                for name in _plurals(form.english):
                    if holes[name].text in ("s", "es"):
                        holes[name] = _Said("", 0)
                said = _HOLE.sub(lambda one: holes[f"h{one[1]}"].text, form.chinese)  # noqa: B023
                left = sum(one.left for one in holes.values())
                # Two texts are rather two than the hole of one.
                left += any(_TWO.search(one) for one in found.groups())
                yield _Said(_GAP.sub("", said), left)

    def _hole(self, text: str, deeper: int) -> _Said:
        core = text.strip()
        said, left = self.said(core, deeper)
        return _Said(text.replace(core, said) if core else text, left)

    def _by_parts(self, text: str, deeper: int) -> Iterator[_Said]:
        """What stands between texts of which each was made by itself is where it is taken apart."""
        if text[0] + text[-1] == "()":
            said, left = self.said(text[1:-1], deeper)
            yield _Said(f"（{said}）", left)
        for between, chinese in _BETWEEN.items():
            parts = text.split(between, _SPLITS)
            for count in range(1, len(parts)):
                first, second = between.join(parts[:count]), between.join(parts[count:])
                if first.strip() and second.strip():
                    yield self._of_two(first, between, second, chinese, deeper)

    def _of_two(self, first: str, between: str, second: str, chinese: str, deeper: int) -> _Said:
        close = ""
        if between == ". ":
            first += "."
        elif between == " (" and second.endswith(")"):
            second, close = second[:-1], "）"
        one = self.said(first, deeper)
        if between == ", " and not (" " in first and " " in second):  # names of a list
            return _Said("", sys.maxsize)
        # A part that is added may have its own beginning: "; or ...".
        added = self.said(f"{between.strip()} {second}", 0)
        if added.left == 0:
            return _Said(one.text + added.text, one.left)
        two = self.said(second, deeper)
        if between == ". ":
            chinese = "" if one.text.endswith("。") else " "
        elif (between == " (" and not close) or (
            one.text == first and (two.text == second or between == ": ")
        ):
            chinese = between
        return _Said(one.text + chinese + two.text + close, one.left + two.left)


def _own(english: str) -> list[str]:
    """The words of a template that no hole is a part of."""
    return re.findall(r"(?<![A-Za-z}])[A-Za-z]+(?![A-Za-z{])", english)


@cache
def _plurals(english: str) -> list[str]:
    """The holes for the end of a word, which Chinese has not."""
    return [f"h{number}" for number in re.findall(r"[a-z]\{(\d+)\}", english)]


@cache
def _pattern(english: str) -> re.Pattern[str]:
    parts = _HOLE.split(english)
    # One word beside them says little: they are numbers, or names with one.
    hole = ".*?" if len(_WORD.findall(_HOLE.sub("", english))) > 1 else r"\S*\d\S*"
    names = [f"(?P<h{name}>{hole})" for name in parts[1::2]] + [""]
    return re.compile("".join(re.escape(one) + hole for one, hole in zip(parts[::2], names)))
