"""Values of Ansible Vault, made by the real ansible-vault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from hostkit.base.redact import Hidden
from omnikit.foreign import trees
from omnikit.foreign.trees import read_yaml as read

pytestmark = pytest.mark.slow

VAULT = Path(sys.executable).with_name("ansible-vault")


@pytest.fixture
def password_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "vault-password"
    file.write_text("open sesame\n")
    monkeypatch.setenv(trees.VARIABLE, str(file))
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    trees._secret.cache_clear()
    return file


@pytest.fixture
def encrypted(password_file: Path) -> str:
    """A line of an inventory as ansible-vault writes it."""
    argv = [str(VAULT), "encrypt_string", "--stdin-name", "ansible_ssh_pass"]
    done = subprocess.run(argv, input="hunter2", capture_output=True, text=True, check=True)
    return done.stdout


def test_a_value_is_decrypted_and_hidden(encrypted: str) -> None:
    value = read(f"a: 1\n{encrypted}", "f.yml", 4).at(("ansible_ssh_pass",)).value
    assert isinstance(value, Hidden) and value.reveal() == "hunter2"
    assert str(value) == "[redacted]"


def test_a_value_of_any_key_is_hidden(encrypted: str) -> None:
    value = read(encrypted.replace("ansible_ssh_pass", "word"), "f.yml", 4).at(("word",)).value
    assert isinstance(value, Hidden) and value.reveal() == "hunter2"


def test_a_script_may_say_the_password(encrypted: str, password_file: Path) -> None:
    password_file.write_text("#!/bin/sh\necho open sesame\n")
    password_file.chmod(0o700)
    assert read(encrypted, "f.yml", 4).at(("ansible_ssh_pass",)).value.reveal() == "hunter2"


@pytest.mark.parametrize("fault", ["wrong", "missing", "unset"])
def test_what_is_wrong_with_the_password_is_said(
    fault: str, encrypted: str, password_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "wrong":
        password_file.write_text("close sesame")
    elif fault == "missing":
        password_file.unlink()
    else:
        monkeypatch.delenv(trees.VARIABLE)
    with pytest.raises(InputError) as caught:
        read(f"a: 1\n{encrypted}", "f.yml", 4)
    assert caught.value.where == "f.yml:2"
    assert "cannot be decrypted" in str(caught.value)
    assert trees.VARIABLE in str(caught.value.todo)
    assert "sesame" not in str(caught.value)
