"""Secrets in what is shown."""

from __future__ import annotations

from omnikit.yaml import redact


def test_secrets_go_by_the_name_of_their_key_and_by_their_form() -> None:
    data = {
        "HF_TOKEN": "two words",
        "list": ["--api-key topsecret", {"deep": "Authorization: Bearer abcdefghijk"}],
        "number": 3,
        "text": "fine",
    }
    assert redact.clean(data) == {
        "HF_TOKEN": "[redacted]",
        "list": ["--api-key [redacted]", {"deep": "Authorization: [redacted]"}],
        "number": 3,
        "text": "fine",
    }


def test_a_key_over_several_lines_is_taken_out_whole() -> None:
    text = "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----\nb\n"
    assert "MIIabc" not in redact.text(text)
    assert redact.text(text).endswith("b\n")


def test_lists_and_maps_under_a_secret_name_go_too_but_no_reference() -> None:
    data = {
        "API_KEYS": ["a", "b"],
        "db_credential": {"user": "ann", "word": "x"},
        "password": {"file": "/etc/p"},
        "token": None,
        "require_auth": True,
        "command": ["vllm", "--my-token", "x", "--db-password=y", "-e", "DB_PASS=z", "--port", 1],
    }
    assert redact.clean(data) == {
        "API_KEYS": "[redacted]",
        "db_credential": "[redacted]",
        "password": {"file": "/etc/p"},
        "token": None,
        "require_auth": True,
        "command": [
            *("vllm", "--my-token", "[redacted]", "--db-password=[redacted]"),
            *("-e", "DB_PASS=[redacted]", "--port", 1),
        ],
    }


def test_a_setting_below_a_secret_name() -> None:
    assert redact.setting(("server", "args", "api-key", "0"), "x") == "[redacted]"
    assert redact.setting(("ssh", "password", "variable"), "SSH_PASS") == "SSH_PASS"
    assert redact.setting(("server", "args", "token_threshold"), 3) == 3


def test_words_of_a_command() -> None:
    assert redact.words(["vllm", "--api-key", "topsecret"])[2] == "[redacted]"
    assert redact.words(["vllm", "--port", 8000]) == ["vllm", "--port", 8000]
    assert redact.variables({"my_token": "x", "HOME": "/root"})["my_token"] == "[redacted]"


def test_numbers_that_are_none_become_data() -> None:
    assert redact.clean([float("nan"), float("inf"), 1.5]) == [None, None, 1.5]
