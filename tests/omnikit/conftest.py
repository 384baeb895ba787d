"""Fixtures for the tests of the package."""

from __future__ import annotations

import pytest
from omnikit import layers


@pytest.fixture(autouse=True)
def no_site_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's configs/*.local.yaml must not decide what a test sees."""
    monkeypatch.setattr(layers, "local_files", list)
