"""Key pairs, and what ssh's words mean. Real hosts: test_setup_keys.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from omnikit.fleet import keys


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.needs("ssh")
def test_a_pair_is_made_once(tmp_path: Path) -> None:
    key = tmp_path / "new" / "id"
    assert keys.ensure_pair(key, "me", dry_run=True) == "would be made"
    assert not key.parent.exists()
    assert keys.ensure_pair(key, "me") == "made"
    assert (mode(key), mode(tmp_path / "new")) == (0o600, 0o700)
    public = (tmp_path / "new" / "id.pub").read_text()
    assert public.startswith("ssh-ed25519 ") and public.endswith(" me\n")
    assert keys.ensure_pair(key, "me") == "unchanged"


@pytest.mark.needs("ssh")
def test_modes_and_a_missing_public_key_are_mended(tmp_path: Path) -> None:
    key, public = tmp_path / "id", tmp_path / "id.pub"
    keys.ensure_pair(key, "me")
    before = public.read_text().split()[:2]
    key.chmod(0o640)
    assert keys.ensure_pair(key, "me", dry_run=True) == "would be mended"
    assert mode(key) == 0o640
    assert keys.ensure_pair(key, "me") == "mended"
    public.unlink()
    assert keys.ensure_pair(key, "me") == "mended"
    assert public.read_text().split()[:2] == before


@pytest.mark.needs("ssh")
def test_a_private_key_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("no key\n")
    with pytest.raises(InputError, match="cannot be told from the private one"):
        keys.ensure_pair(tmp_path / "id", "me")


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("root@h: Permission denied (publickey,password).", "wrong user or password"),
        ("root@h: Permission denied (publickey).", "it takes keys only"),
        ("Host key verification failed.", "its host key is not the recorded one"),
        ("ssh: connect to host h port 22: Connection refused", "it cannot be reached"),
        ("ssh: connect to host h port 22: No route to host", "it cannot be reached"),
        ("something else", "ssh failed: something else"),
    ],
)
def test_what_ssh_says_is_explained(said: str, meaning: str) -> None:
    text = keys.explain("d0", said, Path("/k.pub"))
    assert meaning in text and said in text
