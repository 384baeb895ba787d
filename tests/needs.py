"""What some tests need of the machine: without it they are skipped, which CI counts as failed."""

from __future__ import annotations

import os
import shutil

import pytest

PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def needs(*programs: str) -> None:
    """Skip the test unless it runs as root and these programs are installed (see .ci/run)."""
    if os.geteuid() != 0:
        pytest.skip("this test needs root")
    missing = [name for name in programs if shutil.which(name, path=PLACES) is None]
    if missing:
        pytest.skip(f"this test needs {', '.join(missing)}")
