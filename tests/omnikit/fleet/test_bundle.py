"""What is shipped to hosts."""

from __future__ import annotations

import io
import zipfile

from omnikit.fleet import bundle


def test_nothing_that_this_machine_compiled_is_shipped() -> None:
    made = zipfile.ZipFile(io.BytesIO(bundle.archive({}, bundle.host_code())))
    names = made.namelist()
    assert "hostkit/containers/engines.py" in names
    assert [name for name in names if not name.endswith(".py")] == []
    for name in names:
        made.read(name).decode()
