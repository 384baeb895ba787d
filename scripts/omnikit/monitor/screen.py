"""A look at an environment as a terminal shows it: from 80 columns on, and readable without colour,
since what is not well has a mark and its words.
"""

from __future__ import annotations

import select
import sys
import termios
import time
import tty
from contextlib import contextmanager, suppress
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hostkit.base.log import duration, words
from omnikit.logs import history
from omnikit.monitor.look import Snapshot

_WIDE = 110  # columns from which on less important ones are shown
_WHYS = 4  # instances of which it is said why they are so
_STYLES = {"ready": "green", "starting": "yellow", "stopped": "dim"}


def number(value: Optional[float], unit: str = "") -> str:
    """A figure for people; "-" where it is not known."""
    if value is None:
        return "-"
    shown = f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.2f}".rstrip("0")
    return f"{shown}{unit}"


def share(value: Optional[float]) -> str:
    """A share for people."""
    return "-" if value is None else f"{100 * value:.0f} %"


def is_well(one: Mapping[str, Any]) -> bool:
    """Whether an instance serves."""
    return bool(one["state"] == "ready" and one["in_pool"])


def ordered(found: Snapshot, most: int) -> tuple[list[Mapping[str, Any]], int]:
    """The instances that there is room for, those first that are not well; how many are left out.

    All are in the order of the plan where there is room for all.
    """
    every = list(found["instances"])
    if len(every) <= most:
        return every, 0
    every.sort(key=is_well)  # stable
    return every[: max(1, most - 1)], len(every) - max(1, most - 1)


def view(found: Snapshot, width: int, height: int) -> RenderableType:
    """What fills a terminal of so many columns and lines."""
    parts: list[RenderableType] = [_head(found)]
    if found["error"]:
        parts.append(_cut(f"! {found['error']}"))
    doing = _doing(found["doing"], found["at"]) if found["doing"] else []
    parts += doing
    events = found["events"][-(5 if height < 40 else 8) :]
    told = sum(bool(one["why"]) for one in found["instances"])
    taken = 3 + bool(found["error"]) + len(doing) + min(told, _WHYS) + len(events) + bool(events)
    shown, left_out = ordered(found, max(5, height - taken))
    parts.append(_instances(shown, width))
    if left_out:
        well = all(is_well(one) for one in found["instances"] if one not in shown)
        more = f"and {left_out} more, all ready" if well else f"and {left_out} more"
        parts.append(Text(f"  {words(more)}", style="dim"))
    for one in [one for one in shown if one["why"]][:_WHYS]:
        parts.append(_cut(f"{' ' if is_well(one) else '!'} {one['name']}: {one['why']}"))
    if events:
        parts += [Text(""), _events(events)]
    return Group(*parts)


def _cut(text: str, style: str = "") -> Text:
    return Text(words(text), style, no_wrap=True, overflow="ellipsis")


def _head(found: Snapshot) -> RenderableType:
    total = found["total"]
    whole = total["ready"] == total["of"]
    serve = words(f"{total['ready']} of {total['of']} serve")
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(
        Text.assemble(
            (found["environment"], "bold"), "  ", f"{found['url'] or words('no proxy')}  ",
            (serve if whole else f"! {serve}", "green" if whole else "bold red"),
        ),
        time.strftime("%H:%M:%S", time.localtime(found["at"])),
    )  # fmt: skip
    figures = (
        f"{number(total['requests_s'])} requests/s   {number(total['tokens_s'])} tokens/s   "
        f"first token {number(total['first_s'], ' s')}   {number(total['running'])} running   "
        f"{number(total['waiting'])} waiting"
    )
    return Group(grid, _cut(figures))


def _doing(doing: Mapping[str, Any], at: float) -> list[RenderableType]:
    taken, about = at - doing["began"], doing["about_s"]
    said = f" of about {duration(about)}" if about else ""
    line = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=about, completed=min(taken, about), width=20) if about else ""
    line.add_row(Text(words(f"{doing['what']} by {doing['owner']}: {duration(taken)}{said}")), bar)
    return [line, *(_cut(f"  {text}", "dim") for text in doing["said"])]


def _instances(shown: Sequence[Mapping[str, Any]], width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", expand=False)
    wide = width >= _WIDE
    for name in ("", "instance", "role", "host", "state"):
        table.add_column(words(name), no_wrap=True, overflow="ellipsis")
    more = ["req/s", "tok/s", "first"] if wide else ["req/s", "first"]
    for name in (*more, "run", "wait", "KV", *(["up"] if wide else [])):
        table.add_column(words(name), justify="right", no_wrap=True)
    for one in shown:
        well = is_well(one)
        state = one["state"] if one["in_pool"] else f"{one['state']}, out"
        up = duration(one["up_s"]) if one["up_s"] is not None else "-"
        name = one["name"] + (f" x{one['servers']}" if one["servers"] > 1 else "")
        figures = [number(one["requests_s"])]
        figures += [number(one["tokens_s"])] if wide else []
        figures += [number(one["first_s"], " s"), number(one["running"]), number(one["waiting"])]
        table.add_row(
            *map(Text, ("" if well else "!", name, one["role"], one["host"])),
            Text(words(state), style=_STYLES.get(state, "bold red") if well else "bold red"),
            *(*figures, share(one["kv"]), *([up] if wide else [])),
        )
    return table


def _events(events: Sequence[Mapping[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=8)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for event in events:
        where = event.get("node") or ", ".join(event["hosts"])
        what = f"{event['what']}: {event['result']}" if "by" in event else event["what"]
        why = f"by {event['by']}" if "by" in event else event.get("why") or ""
        text = f"{words(what)}  {words(why)}".rstrip()
        at = time.strftime("%H:%M:%S", time.localtime(history.moment(event)))
        table.add_row(at, Text(str(where)[:14]), Text(text))
    return table


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Whether somebody wants to leave (q, Ctrl-C), asked for so many seconds at most."""
    if not sys.stdin.isatty():
        yield lambda seconds: bool(select.select([], [], [], seconds)[0])
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def pressed(seconds: float) -> bool:
        return bool(select.select([number], [], [], seconds)[0]) and sys.stdin.read(1) in "qQ\x03"

    try:
        tty.setcbreak(number)
        yield pressed
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def show(look: Callable[[], Snapshot], interval_s: float, console: Console) -> None:
    """Fill the terminal with look after look, until q or Ctrl-C. The terminal is as before then."""
    found = look()
    screen = Live(console=console, screen=True, auto_refresh=False)
    with suppress(KeyboardInterrupt), _keys() as left, screen as live:
        while True:
            live.update(view(found, console.width, console.height), refresh=True)
            if left(interval_s):
                return
            found = look()
