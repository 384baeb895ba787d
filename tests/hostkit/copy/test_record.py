"""The record beside a copy of a source tree."""

from __future__ import annotations

from pathlib import Path

import pytest
from code_cases import copied, make_source

from hostkit.copy import record


@pytest.mark.needs("rsync")
def test_records_of_two_copies_say_what_changed_between_them(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    copied(source, target)
    installed = record.read(str(target))
    (source / "omni" / "engine.py").write_text("speed = 2\n")
    (source / "omni" / "csrc" / "kernel.cpp").unlink()
    copied(source, target)
    now = record.read(str(target))
    assert installed is not None and now is not None and installed["digest"] != now["digest"]
    changed = record.changed(installed, now)
    assert changed == ("omni/csrc/kernel.cpp", "omni/engine.py")
    assert record.needs(changed)["rebuild"] is True
    assert record.changed(now, now) == ()


def test_what_is_no_record_is_none(tmp_path: Path) -> None:
    assert record.read(str(tmp_path)) is None
    for text in (
        *("", "[]", "{}", '{"complete": true}', "\x00"),
        '{"complete": true, "digest": "d", "files": [1]}',
        '{"complete": true, "digest": "d", "files": {"a": 5}}',
        '{"complete": true, "digest": "d", "files": {"a": ["f", 1, 2]}}',
        '{"complete": true, "digest": "d", "files": {"a": ["f", 1, 2, "3", ""]}}',
        '{"complete": false, "digest": "d", "files": {}, "sent": ["b"]}',
        '{"complete": false, "digest": "d", "files": {}, "sent": 3}',
    ):
        (tmp_path / record.RECORD).write_text(text)
        assert record.read(str(tmp_path)) is None
    for text in ("[1]", '{"a": 1}', '{"a": []}', '{"a": [1, 2, 3, 4, {}]}'):
        (tmp_path / record.INDEX).write_text(text)
        assert record.index(str(tmp_path)) == {}
