"""Where models are published: what is read of lists of hashes, and names that are not taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from omnikit.errors import ActionError, InputError
from omnikit.weights import download_sources
from omnikit.weights.download_sources import Access, Remote

SUM = "0" * 63 + "A"


def test_hashes_are_read_as_sha256sum_writes_them() -> None:
    text = f"# made by hand\n\n{SUM}  a b.bin\n{SUM} *./sub/c.bin\n"
    found = download_sources.read_sums(text, "f")
    assert found == {"a b.bin": SUM.lower(), "sub/c.bin": SUM.lower()}
    with pytest.raises(InputError, match="is no line of sha256sum") as caught:
        download_sources.read_sums(f"{SUM}  a\nnonsense\n", "f")
    assert caught.value.where == "f:2"


def test_a_folder_is_all_its_files_save_hidden_ones(tmp_path: Path) -> None:
    for name in ("a.json", "sub/b.py", ".git/config", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "SHA256SUMS").write_text(f"{SUM}  a.json\n")
    found = download_sources.find(str(tmp_path), Access())
    assert [one.name for one in found.files] == ["SHA256SUMS", "a.json", "sub/b.py"]
    assert found.files[1].sha256 == SUM.lower() and found.files[2].sha256 is None


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "a\0b"])
def test_a_name_that_leads_elsewhere_is_not_taken(name: str) -> None:
    with pytest.raises(InputError, match="not taken"):
        download_sources._safe([Remote("good.json", "u"), Remote(name, "u")])


@pytest.mark.parametrize(
    ("status", "kind", "todo"),
    [
        (401, InputError, "token"),
        (403, InputError, "licence accepted"),
        (404, InputError, "check name and revision"),
        (500, ActionError, "another mirror"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, kind: type[Exception], todo: str) -> None:
    error = download_sources.refusal(status, "it")
    assert isinstance(error, kind) and todo in str(error) and str(status) in str(error)
