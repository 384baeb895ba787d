"""The record beside a copy of a source tree."""

from __future__ import annotations

from pathlib import Path

from code_cases import copied, make_source
from omnikit import host_code_needs
from omnikit import host_code_record as records


def test_records_of_two_copies_say_what_changed_between_them(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    copied(source, target)
    installed = records.read(str(target))
    (source / "omni" / "engine.py").write_text("speed = 2\n")
    (source / "omni" / "csrc" / "kernel.cpp").unlink()
    copied(source, target)
    now = records.read(str(target))
    assert installed is not None and now is not None and installed["digest"] != now["digest"]
    changed = records.changed(installed, now)
    assert changed == ("omni/csrc/kernel.cpp", "omni/engine.py")
    assert host_code_needs.needs(changed)["rebuild"] is True
    assert records.changed(now, now) == ()


def test_what_is_no_record_is_none(tmp_path: Path) -> None:
    assert records.read(str(tmp_path)) is None
    for text in ("", "[]", "{}", '{"complete": true}', "\x00"):
        (tmp_path / records.RECORD).write_text(text)
        assert records.read(str(tmp_path)) is None
    (tmp_path / records.INDEX).write_text("[1]")
    assert records.index(str(tmp_path)) == {}
