"""Addresses and folders that a source may have, and those that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from omnikit.weights.download import source as download_source


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("https://host/R1?token=SECRET", "a query or a fragment"),
        ("https://host/R1#SECRET", "a query or a fragment"),
        ("file:///data/R1?SECRET", "a query or a fragment"),
        ("https://me:SECRET@host/R1", "a user's name"),
        ("https://:SECRET@host/R1", "a user's name"),
        ("https://me:SECRET/x@host/R1", "a user's name or without a host and port"),
        ("https://[SECRET/R1", "without a host"),
        ("https:/SECRET/R1", "without a host"),
        ("htp://host/SECRET", "found the scheme htp://, known are http://, https:// and file://"),
        ("file://web/SECRET", "found file: with the host web and no whole path"),
        ("file:SECRET", "with the host none"),
    ],
)
def test_what_cannot_be_a_folder_of_files_is_refused(source: str, what: str) -> None:
    with pytest.raises(InputError) as raised:
        download_source.check_place(source)
    assert what in str(raised.value) and raised.value.todo
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    ("source", "sent"),
    [
        ("http://host", "http://host/"),
        ("HTTP://host:80/a b/", "HTTP://host:80/a%20b/"),
        ("https://host/模型/R1", "https://host/%E6%A8%A1%E5%9E%8B/R1/"),
        ("https://host/a%20b/50%", "https://host/a%20b/50%25/"),
        ("https://bücher.example/a", "https://xn--bcher-kva.example/a/"),
    ],
)
def test_an_address_is_sent_encoded(source: str, sent: str) -> None:
    download_source.check_place(source)
    assert download_source.is_web(source)
    assert download_source.address(source).replace("HTTP:", "http:") == sent.replace("HTTP", "http")


def test_folders_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download_source.folder_named("~/a?b") == tmp_path / "a?b"
    for source in ("file:///data/a%20b", "file://localhost/data/a b", "FILE:///data/a%20b"):
        download_source.check_place(source)
        assert download_source.folder_named(source) == Path("/data/a b")
    with pytest.raises(InputError, match="found ~nosuch, and there is no such user"):
        download_source.folder_named("~nosuch/x")


def test_source_and_target_lie_apart(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (tmp_path / "link").symlink_to(source)
    download_source.check_apart(source, tmp_path / "source2")
    with pytest.raises(InputError, match="the same folder"):
        download_source.check_apart(source, tmp_path / "link")
    with pytest.raises(InputError, match="the target lies in the source"):
        download_source.check_apart(source, tmp_path / "link" / "sub")
    with pytest.raises(InputError, match="the source lies in the target"):
        download_source.check_apart(source, tmp_path)
