"""Pages that web servers make of a folder."""

from __future__ import annotations

import pytest
from omnikit.weights import download_page

BASE = "http://host/a%20b/%E6%A8%A1/"


@pytest.mark.parametrize(
    ("links", "files", "folders"),
    [
        (["config.json", "a%20b.txt", "./x.json"], {"config.json", "a b.txt", "x.json"}, set()),
        (["/a b/模/x", "/a%20b/%e6%a8%a1/y", "http://host/a%20b/模/z"], {"x", "y", "z"}, set()),
        (["sub/", "sub/deep.json", "../", "/", ".hidden", ".git/"], set(), {"sub"}),
        (
            ["?C=N;O=D", "x?download=1", "#top", "http://other/a%20b/x", "http://[", ""],
            set(),
            set(),
        ),
    ],
)
def test_links_to_files_directly_below(
    links: list[str], files: set[str], folders: set[str]
) -> None:
    text = "".join(f'<a href="{link}">name</a>' for link in links) + "<a>none</a>"
    found = download_page.read(f"<html><pre>{text}</pre><link href='style.css'>", BASE)
    assert (found.files, found.folders) == (files, folders)
