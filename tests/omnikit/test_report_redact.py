"""Secrets in what a report shows."""

from __future__ import annotations

import pytest
from omnikit import report_redact


@pytest.mark.parametrize("name", ["api-key", "--api-key", "HF_TOKEN", "OPENAI_API_KEY", "password"])
def test_names_that_hold_secrets(name: str) -> None:
    assert report_redact.is_secret(name)


@pytest.mark.parametrize("name", ["file", "max-num-batched-tokens", "tokens", "block_size", "key"])
def test_names_that_hold_none(name: str) -> None:
    assert not report_redact.is_secret(name)


def test_secrets_go_by_the_name_of_their_key_and_by_their_form() -> None:
    data = {
        "HF_TOKEN": "two words",
        "list": ["--api-key topsecret", {"deep": "Authorization: Bearer abcdefghijk"}],
        "number": 3,
        "text": "fine",
    }
    assert report_redact.clean(data) == {
        "HF_TOKEN": "[redacted]",
        "list": ["--api-key [redacted]", {"deep": "Authorization: [redacted]"}],
        "number": 3,
        "text": "fine",
    }


def test_a_key_over_several_lines_is_taken_out_whole() -> None:
    text = "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----\nb\n"
    assert "MIIabc" not in report_redact.text(text)
    assert report_redact.text(text).endswith("b\n")


def test_words_of_a_command() -> None:
    assert report_redact.words(["vllm", "--api-key", "topsecret"])
    assert not report_redact.words(["vllm", "--port", 8000])
