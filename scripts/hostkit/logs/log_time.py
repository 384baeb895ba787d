"""When a log line was written, as the line itself says it. Pure.

Standard library only: this module also runs on the hosts.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Optional

_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: f"{number:02}" for number, name in enumerate(_NAMES, 1)}
_CLOCK = r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)"
# Python's logging, nginx' error log, JSON lines, Ascend's plog: all with a year.
_FULL = re.compile(rf"\b(20\d\d)[-/](0\d|1[0-2])[-/]([0-3]\d)[-T ]{_CLOCK}")
# vLLM: "INFO 11-23 09:58:33 [model.py:733]"; no year.
_VLLM = re.compile(rf"\b(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) (0\d|1[0-2])-([0-3]\d) {_CLOCK}")
# PyTorch and Ray (glog): "[W1123 09:58:52.434912737 utils.cpp:41]"; no year.
_GLOG = re.compile(rf"(?:^|\[)[IWEFC](0\d|1[0-2])([0-3]\d) {_CLOCK}")
# nginx' access log: "[23/Nov/2026:09:59:22 +0000]".
_ACCESS = re.compile(rf"\b([0-3]\d)/({'|'.join(_MONTHS)})/(20\d\d):{_CLOCK}")
_SEARCHED = 120  # a line says its time at its beginning


def stamp(line: str, latest: datetime) -> Optional[str]:
    """The line's time as YYYY-MM-DDTHH:MM:SS, which sorts; None when it says none.

    latest: when the file was last written; the year of lines that have none follows from it.
    """
    head = line[:_SEARCHED]
    found = _FULL.search(head)
    if found:
        year, month, day, *clock = found.groups()
        return f"{year}-{month}-{day}T{':'.join(clock)}"
    found = _VLLM.search(head) or _GLOG.search(head)
    if found:
        month, day, *clock = found.groups()
        # One day of grace: clocks and time zones of host and container may differ.
        later = (int(month), int(day)) > (latest.month, latest.day + 1)
        return f"{latest.year - later}-{month}-{day}T{':'.join(clock)}"
    found = _ACCESS.search(head)
    if found:
        day, name, year, *clock = found.groups()
        return f"{year}-{_MONTHS[name]}-{day}T{':'.join(clock)}"
    return None
