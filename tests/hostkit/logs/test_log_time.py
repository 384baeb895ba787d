"""When lines of the logs that there are were written."""

from __future__ import annotations

from datetime import datetime

import pytest

from hostkit.logs.log_time import stamp

LATEST = datetime(2026, 11, 23, 12, 0, 0)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("INFO 11-23 09:58:33 [model.py:733] x", "2026-11-23T09:58:33"),
        ("(EngineCore pid=7) ERROR 12-31 23:59:59 [core.py:1] x", "2025-12-31T23:59:59"),
        ("[W1123 09:58:52.434912737 utils.cpp:41] x", "2026-11-23T09:58:52"),
        ("2026/11/23 09:59:22 [error] 12#12: *3 x", "2026-11-23T09:59:22"),
        ('{"time":"2026-11-23T09:59:22+00:00"}', "2026-11-23T09:59:22"),
        ("1.2.3.4 - - [23/Nov/2026:09:59:22 +0000] x", "2026-11-23T09:59:22"),
        ("[ERROR] HCCL(1,python):2026-11-23-09:59:22.123.456 x", "2026-11-23T09:59:22"),
        ("Traceback (most recent call last):", None),
        ("INFO 13-45 99:00:00 nonsense", None),
    ],
)
def test_times(line: str, found: str) -> None:
    assert stamp(line, LATEST) == found
