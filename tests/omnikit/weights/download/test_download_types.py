"""Names of files that a source may give, and where unfinished ones lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import ActionError
from omnikit.weights.download.types import Listing, checked_name, staging


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../up", "a/../../up", "a//b", "a/", "a\\b", "a\nb", "./a"]
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ActionError, match="no path below a folder"):
        checked_name(name, "hub")


@pytest.mark.parametrize("name", ["config.json", "sub/a b.json", "..name", "模型.json"])
def test_a_plain_name_is_taken(name: str) -> None:
    assert checked_name(name, "hub") == name


def test_a_listing_never_shows_its_secrets() -> None:
    listing = Listing("hub", "main", [], "host", {"Authorization": "Bearer secret"})
    assert "secret" not in repr(listing)
    assert staging(Path("/model")).name.startswith(".")  # no tool takes it for part of the model
