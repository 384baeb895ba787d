"""Reports in a real browser: phone and desktop, light and dark, and printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator

import pytest
import report_cases
from browser import Browser, browser
from needs import needs

from omnikit.config import config
from omnikit.report import data
from omnikit.report import page as report_page

pytestmark = pytest.mark.slow

# Of the drawings: texts that stick out, or lie over each other, or are cut without a tooltip.
_TEXTS = """(() => {
  const bad = [];
  for (const drawing of document.querySelectorAll('.drawing')) {
    const all = drawing.getBoundingClientRect();
    const texts = [...drawing.querySelectorAll('*')].filter(e => e.getClientRects().length
      && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
    const boxes = texts.map(t => [t, t.getBoundingClientRect()]);
    for (const [t, b] of boxes) {
      if (t.scrollWidth > t.clientWidth + 1 && t.clientWidth && !t.title)
        bad.push('cut: ' + t.textContent);
      if (b.left < all.left - 1 || b.right > all.right + 1 || b.bottom > all.bottom + 1)
        bad.push('outside: ' + t.textContent);
      for (const [u, c] of boxes)
        if (t !== u && b.left < c.right - 1 && c.left < b.right - 1
            && b.top + 3 < c.bottom - 3 && c.top + 3 < b.bottom - 3)
          bad.push('over each other: ' + t.textContent + ' / ' + u.textContent);
    }
  }
  return bad;
})()"""
# Cards that leave their frame or lie over each other, and parts that leave their card.
_CARDS = """(() => {
  const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top
    || b.bottom <= a.top;
  const inside = (a, b) => a.left >= b.left && a.right <= b.right && a.top >= b.top
    && a.bottom <= b.bottom;
  const box = e => e.getBoundingClientRect();
  const cards = [...document.querySelectorAll('.card')];
  return cards.filter(card => !inside(box(card), box(card.parentNode))
    || cards.some(other => other !== card && !apart(box(card), box(other)))
    || [...card.querySelectorAll('*')].some(e => !inside(box(e), box(card)))).length;
})()"""
_OPEN = "table:not(details table)"
_CUT = """[...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth + 1)
  .map(s => s.querySelector('caption').textContent)"""
LONG = """
profile: {engine: cpu, model: tiny-qwen2}
hosts:
  a-host-with-a-name-as-long-as-names-of-hosts-can-be-in-a-dc-001:
    {address: 127.0.0.1, connection: local}
topology:
  prefill: [{hosts: [a-host-with-a-name-as-long-as-names-of-hosts-can-be-in-a-dc-001]}]
  decode: [{hosts: [a-host-with-a-name-as-long-as-names-of-hosts-can-be-in-a-dc-001]}]
  proxy: a-host-with-a-name-as-long-as-names-of-hosts-can-be-in-a-dc-001
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    needs("chromium")
    with browser(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture(params=["local", "long", "2p1d", "18p1d"])
def page(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A report that has everything in it, with hostile texts."""
    report_cases.redirect(monkeypatch, tmp_path)
    name = str(request.param)
    if name == "long":
        name = str(tmp_path / "long.yaml")
        Path(name).write_text(LONG)
    loaded = config.load(name, environ={})
    report_cases.fill(loaded, tmp_path, report_cases.HOSTILE)
    if request.param == "18p1d":
        report_cases.serving(monkeypatch, mixed=True)
    path = tmp_path / "report.html"
    language = "zh" if request.param == "2p1d" else "en"
    report_page.write(path, report_page.page(data.collect(loaded, False), language))
    return path


def test_on_phone_and_desktop_in_light_and_dark(shown: Browser, page: Path) -> None:
    for width in (360, 768, 1280):
        for dark in (False, True):
            shown.open(page, width, dark)
            assert shown.complaints() == []
            assert not [e for e in shown.events if "Dialog" in e.get("method", "")]
            assert shown.value("document.documentElement.scrollWidth") == width
            ground = shown.value("getComputedStyle(document.body).backgroundColor")
            assert ground == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
        hidden = (
            f"[...document.querySelectorAll('{_OPEN}')].filter(t => t.offsetHeight < 20).length"
        )
        assert shown.value(hidden) == 0
        assert shown.value(_TEXTS) == []
        assert shown.value(_CARDS) == 0
        assert shown.value("[...document.images].every(i => i.naturalWidth > 0)") is True


@pytest.mark.parametrize("width", [360, 500, 768, 900, 1000, 1440])
def test_no_table_is_wider_than_its_place(shown: Browser, page: Path, width: int) -> None:
    shown.open(page, width)
    shown.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert shown.value(_CUT) == []
    tall = "[...document.querySelectorAll('caption.named')].map(c => c.offsetHeight)"
    assert max(shown.value(tall), default=0) < 80  # one letter in a line it was 500


def test_a_fleet_is_no_endless_page_on_a_phone(
    shown: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_cases.redirect(monkeypatch, tmp_path)
    report_cases.serving(monkeypatch)
    loaded = config.load("18p1d", environ={})
    report_cases.fill(loaded, tmp_path)
    report_page.write(path := tmp_path / "r.html", report_page.page(data.collect(loaded, False)))
    shown.open(path, 360)
    section = "document.querySelector('#state').parentNode.offsetHeight"
    assert shown.value(section) < 7000
    shown.value("document.querySelector('details').open = true")
    assert shown.value(section) > 20000


def test_words_of_headings_are_whole_on_paper(shown: Browser, page: Path) -> None:
    shown.open(page, 1000, media="print")
    breaks = "[...document.querySelectorAll('thead th')].map(t => getComputedStyle(t).overflowWrap)"
    assert set(shown.value(breaks)) == {"normal"}


def test_an_error_keeps_its_lines_and_only_wide_tables_take_the_focus(
    shown: Browser, page: Path
) -> None:
    shown.open(page, 1440)
    lines = "getComputedStyle(document.querySelector('p.bad')).whiteSpaceCollapse"
    assert shown.value(lines) == "preserve-breaks"
    focus = (
        "[...document.querySelectorAll('[tabindex]')].map(s => s.querySelector('table').className)"
    )
    assert shown.value(focus) and all("wide" in style for style in shown.value(focus))


def test_text_is_large_enough_to_read_on_a_phone(shown: Browser, page: Path) -> None:
    shown.open(page, 360)
    heights = shown.value(
        "[...document.querySelectorAll('.drawing :is(strong, .line, .fact, .arrow, .main span)')]"
        ".filter(t => t.textContent)"
        ".map(t => t.getBoundingClientRect().height)"
    )
    assert min(heights) >= 10
    sizes = (
        "[...document.querySelectorAll('td')].map(t => parseFloat(getComputedStyle(t).fontSize))"
    )
    assert min(shown.value(sizes)) >= 14


def test_tables_are_tables_for_a_screen_reader_on_a_phone_too(shown: Browser, page: Path) -> None:
    shown.open(page, 360)
    nodes = shown.call("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in nodes if not node.get("ignored")]
    tables = shown.value(f"document.querySelectorAll('{_OPEN}').length")
    assert roles.count("table") == tables and roles.count("rowheader") > tables
    named = {
        node["name"]["value"] for node in nodes if node.get("role", {}).get("value") == "image"
    }
    assert len(named) >= 2 and all(named)


def test_it_prints_on_light_paper(shown: Browser, page: Path) -> None:
    shown.open(page, 1000, dark=True, media="print")
    assert shown.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.value("getComputedStyle(document.body).color") == "rgb(27, 32, 38)"
    ticks = "[...document.querySelectorAll('.tick')].every(t => t.getClientRects().length)"
    assert shown.value(ticks)  # as on a desktop
    assert shown.value("document.querySelector('nav').getClientRects().length") == 0
    made = shown.pdf()
    pages = max(int(count) for count in re.findall(rb"/Count (\d+)", made))
    assert made.startswith(b"%PDF-") and 3 <= pages < 60
