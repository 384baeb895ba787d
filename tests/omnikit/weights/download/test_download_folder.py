"""What lies in a folder of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from weights_server import sha256

from hostkit.base.errors import ActionError, InputError
from omnikit.weights.download.source import of_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mirror"
    (made / "sub").mkdir(parents=True)
    (made / ".hidden").mkdir()
    for name in ("config.json", "sub/a b.json", ".hidden/x", ".gitattributes"):
        (made / name).write_text(name)
    return made


def test_all_files_but_hidden_ones(folder: Path) -> None:
    (folder / "linked.json").symlink_to("config.json")
    found = of_folder(folder, None)
    assert [file.name for file in found.files] == ["config.json", "linked.json", "sub/a b.json"]
    assert not found.lost and not found.notes and not found.hub


def test_links_that_lead_nowhere_or_to_folders_are_told(folder: Path) -> None:
    (folder / "model.safetensors").symlink_to("../blobs/none")
    (folder / "more").symlink_to("sub")
    (folder / ".dead").symlink_to("none")
    found = of_folder(folder, None)
    assert found.lost == {"model.safetensors": "a link that leads to no file"}
    assert list(found.notes) == ["more is a link to a folder, which is not followed"]


def test_its_checksums_are_held_against_it(folder: Path) -> None:
    (folder / "SHA256SUMS").write_text(f"\ufeff{sha256(b'config.json')}  config.json\n")
    found = {file.name: file.hash for file in of_folder(folder, None).files}
    assert found == {"config.json": f"sha256:{sha256(b'config.json')}", "sub/a b.json": ""}
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("none")
    with pytest.raises(ActionError, match=r"lacks 1 files .*: config\.json \(a link that leads"):
        of_folder(folder, None)
    (folder / "SHA256SUMS").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="SHA256SUMS: cannot be read: it is no text"):
        of_folder(folder, None)


def test_what_may_be_an_address_is_not_repeated_whole() -> None:
    with pytest.raises(InputError, match="there is no such folder") as raised:
        of_folder(Path("host/model?token=secret"), None)
    assert "secret" not in str(raised.value) and "http(s)" in str(raised.value)
