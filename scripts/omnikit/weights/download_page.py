"""Names of files on the page that a web server makes of a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Optional
from urllib.parse import unquote, urljoin, urlsplit


@dataclass
class Page:
    """What a page links to, directly below its address."""

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)


def read(text: str, base: str) -> Page:
    """The links of a page. base: its address, with a slash at its end."""
    links = _Links()
    links.feed(text)
    found = Page()
    for link in links.found:
        try:
            parts = urlsplit(urljoin(base, link))
        except ValueError:
            continue  # no address: nothing that could be a file's
        # Decoded, for servers encode other characters than we do.
        address, start = unquote(parts._replace(query="", fragment="").geturl()), unquote(base)
        if parts.query or not address.startswith(start):
            continue
        name = address[len(start) :]
        folder = name.rstrip("/")
        if not folder or "/" in folder or name.startswith("."):
            continue
        (found.files if folder == name else found.folders).add(folder)
    return found


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        self.found += [text for name, text in attrs if tag == "a" and name == "href" and text]
