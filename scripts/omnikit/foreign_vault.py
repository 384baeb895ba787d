"""Values and files of users that Ansible Vault encrypted, read with Ansible's own library."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from getpass import getpass
from pathlib import Path
from typing import Any

from omnikit.errors import InputError

HEADER = "$ANSIBLE_VAULT;"
# Ansible's own variable: users who have it set need no more.
VARIABLE = "ANSIBLE_VAULT_PASSWORD_FILE"


def decrypt(text: str, where: str) -> str:
    """The plain text. The password comes from the file that ANSIBLE_VAULT_PASSWORD_FILE names, or
    is asked for at a terminal.

    Raises InputError: where; no password, a wrong one, or no text of Ansible Vault.
    """
    if not text.lstrip().startswith(HEADER):
        raise InputError(
            "this value is marked !vault, but is no text of Ansible Vault.",
            where=where,
            todo="make it anew: ansible-vault encrypt_string",
        )
    from ansible.errors import AnsibleError  # late: slow to import, few files need it
    from ansible.parsing.vault import VaultLib

    cipher = "\n".join(line.strip() for line in text.strip().splitlines())
    try:
        plain = VaultLib([("default", _secret())]).decrypt(cipher)
    except (AnsibleError, OSError) as error:
        raise InputError(
            f"this value of Ansible Vault cannot be decrypted: {str(error).splitlines()[0]}",
            where=where,
            todo=f"set {VARIABLE} to the file that holds the vault's password",
        ) from error
    return str(plain.decode())


@lru_cache(maxsize=1)
def _secret() -> Any:
    """The vault's password, asked for once."""
    from ansible.errors import AnsibleError
    from ansible.parsing.dataloader import DataLoader
    from ansible.parsing.vault import VaultSecret, get_file_vault_secret

    file = os.environ.get(VARIABLE)
    if file:
        secret = get_file_vault_secret(filename=str(Path(file).expanduser()), loader=DataLoader())
        secret.load()
        return secret
    if not sys.stdin.isatty():
        raise AnsibleError("its password is not known.")
    return VaultSecret(getpass("Ansible Vault password: ").encode())
