"""The page: whole by itself, escaped, in order, and with enough contrast."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Optional

import pytest
import report_cases

from hostkit.base.errors import ActionError
from omnikit.config import config
from omnikit.fleet.render import TEMPLATES
from omnikit.report import data as report_data
from omnikit.report import page as report_page

pytestmark = pytest.mark.slow

_VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Elements with their attributes and text; an element that is not closed is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, Optional[str]]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} stands twice"
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} is closed, but is not open"

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    def all(self, *tags: str) -> list[dict[str, Optional[str]]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(params=["local", "18p1d"])
def text(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    report_cases.redirect(monkeypatch, tmp_path)
    served = f"model.served_name={json.dumps(report_cases.HOSTILE)}"
    loaded = config.load(request.param, assignments=[served], environ={})
    report_cases.fill(loaded, tmp_path, report_cases.HOSTILE)
    return report_page.page(report_data.collect(loaded, False))


def test_it_needs_nothing_else(text: str) -> None:
    page = Page(text)
    found = [a.get(key) or "" for _, a in page.elements for key in ("src", "href", "xlink:href")]
    assert {address[:1] for address in found if address} == {"#", "d"}
    assert all(address.startswith(("#", "data:image/")) for address in found if address)
    assert page.all("script", "link", "iframe", "object", "base") == []
    style = "".join(page.texts["style"])
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in text and len(text.encode()) < 3_000_000


def test_hostile_text_is_text(text: str) -> None:
    page = Page(text)
    assert {tag for tag, _ in page.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "header", "main", "nav", "section"),
        *("h1", "h2", "h3", "p", "ul", "li", "a", "aside", "strong", "dl", "br", "div", "dt", "dd"),
        *(
            "details",
            "summary",
            "figure",
            "figcaption",
            "span",
            "img",
            "table",
            "caption",
            "thead",
            "tbody",
            "tr",
        ),
        *("th", "td"),
    }
    assert not any(key.startswith("on") for _, a in page.elements for key in a)
    assert report_cases.HOSTILE in "".join(page.texts["td"]) and "topsecret1" not in text


def test_what_a_page_cannot_hold_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = "\ud800 \x1b[31m \x00 \u202e"
    data = report_cases.collected(monkeypatch, tmp_path, "2p1d")
    data["audit"][0]["owner"] = data["timeline"]["spans"][0]["host"] = f"ann{odd}"
    report_page.write(tmp_path / "r.html", report_page.page(data))
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "ann\ufffd \ufffd[31m" in text
    assert not any(char in text for char in "\x1b\x00\u202e")


def test_states_and_steps_are_in_chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report_cases.serving(monkeypatch, mixed=True)
    data = report_cases.collected(monkeypatch, tmp_path, "18p1d")
    page = Page(report_page.page(data, "zh"))
    said = {text.strip() for tag in ("td", "th", "dd", "li") for text in page.texts[tag]}
    english = {"ready", "starting", "failed", "unreachable", "warning", "ok", "free disk"}
    assert said & {*english, "Wait for the servers", "Start the proxy", "real requests"} == set()
    assert {"就绪", "启动中", "失败", "无法连接", "警告", "通过", "等待服务就绪"} <= said
    assert any(text.startswith("6 台主机无法连接：p5, p11") for text in said)
    assert {"good", "bad", "warn"} <= {str(cell.get("class")) for cell in page.all("td")}


def test_times_are_in_utc_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        data = report_cases.collected(monkeypatch, tmp_path, "2p1d")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert {one["time"] for one in data["benchmarks"]} == {
        *("2026-11-23T16:20:00Z", "2026-11-23T02:15:00Z")
    }
    assert data["profiles"][0]["began"] == "2026-11-23T16:05:00Z"
    assert data["logs"]["fetched_at"] == "2026-11-24T00:10:00Z"
    assert "All times are in UTC (Z)" in report_page.page(data)


def test_headings_are_in_order_and_every_link_has_a_target(text: str) -> None:
    page = Page(text)
    levels = [int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1 and levels.count(2) == 14
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:]))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for a in page.all("a")} <= set(ids)
    labels = [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a]
    assert {name for label in labels for name in str(label).split()} <= set(ids)


def test_pictures_have_words_and_tables_headings(text: str) -> None:
    page = Page(text)
    assert all(picture["alt"] for picture in page.all("img"))
    assert [bool(div["aria-label"]) for div in page.all("div") if div.get("role") == "img"] == [
        True
    ] * 2
    assert len(page.all("table")) == len(page.all("caption")) == len(page.all("thead")) > 8
    assert {heading["scope"] for heading in page.all("th")} == {"col", "row"}
    assert all(name for name in page.texts["caption"])


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6});", block))


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_contrast_is_enough_in_light_and_dark() -> None:
    assert round(contrast("#000000", "#ffffff")) == 21
    style = (TEMPLATES / "environment_report.css").read_text()
    light, dark = map(colours, re.findall(r":root \{\n(.*?)\}", style, re.DOTALL))
    assert set(light) == set(dark) and len(light) == 21
    for scheme in (light, dark):
        for ground in (scheme["ground"], scheme["raised"]):
            for name, colour in scheme.items():
                if name in ("text", "soft", "link", "good", "warn", "bad"):
                    assert contrast(colour, ground) >= 4.5, (name, colour, ground)
                elif name not in ("ground", "raised", "rule"):
                    assert contrast(colour, ground) >= 3, (name, colour, ground)


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    report_page.write(tmp_path / "new" / "r.html", "ü")
    assert (tmp_path / "new" / "r.html").read_text(encoding="utf-8") == "ü"
    assert (tmp_path / "new" / "r.html").stat().st_mode & 0o077 == 0
    assert len(list((tmp_path / "new").iterdir())) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(ActionError, match="cannot be written"):
        report_page.write(tmp_path / "file" / "r.html", "x")
