"""Secrets in log lines, as engines, proxies and people write them."""

from __future__ import annotations

import pytest

from hostkit.base.redact import REDACTED, Redactor, is_secret, names

SECRET = "s3cr3t-V4lue.x"


@pytest.mark.parametrize(
    "line",
    [
        f"Authorization: Bearer {SECRET}",
        f"'authorization': 'Bearer {SECRET}'",
        f"cookie: session={SECRET}",
        f"non-default args: --api-key {SECRET} --port 8000",
        f"args: Namespace(api_key=['{SECRET}', 'b'], port=8000)",
        f'{{"password": "{SECRET}", "user": "ann"}}',
        f"export HF_TOKEN={SECRET}",
        f"pulling from http://ann:{SECRET}@registry.example/x",
        f"vllm_api_key={SECRET}",
        f'{{"s3_secret_key": "{SECRET}"}}',
        f"MYSQL_PWD={SECRET}",
        f"vllm serve --hub-token {SECRET} --port 1",
        "using sk-abcdefghijklmnopqrstuv",
        "hf_abcdefghijklmnopqrstuvwxyz is the token",
        "sent eyJhbGciOiJIUzI1NiJ9.abcdefghijklmnopqrst.abcdefghijklmnop-_ to it",
        "a.b.my-eyJhbGciOiJIUzI1NiJ9.abcdefghijklmnopqrst.abcdefghijklmnop",
    ],
)
def test_the_secret_goes_and_the_rest_of_the_line_stays(line: str) -> None:
    redactor = Redactor()
    done = redactor.line(line + "\n")
    assert REDACTED in done and redactor.count == 1
    for secret in (SECRET, "abcdefghijklmnop"):
        assert secret not in done
    assert done.endswith("\n")


def test_a_private_key_goes_line_by_line() -> None:
    key = [
        "a -----BEGIN OPENSSH PRIVATE KEY-----",
        "b3BlbnNzaC1r",
        "-----END OPENSSH PRIVATE KEY-----",
    ]
    redactor = Redactor()
    done = [redactor.line(f"{line}\n") for line in [*key, "after"]]
    assert done == [f"a {REDACTED}\n", f"{REDACTED}\n", f"{REDACTED}\n", "after\n"]


@pytest.mark.parametrize(
    "line",
    [
        "INFO 11-23 09:58:33 [core.py:1] Avg prompt throughput: 12.3 tokens/s, max_tokens: 16",
        "tokenizer='/data/models/x', tokenizer_mode=auto, skip_tokenizer_init=False",
        "key cache dtype is auto",
        "time_to_first_token: 0.31, first pass: 12, PWD=/root/work",
        "192.0.2.1 - - [23/Nov/2026:09:59:22 +0000] POST /v1/completions 200",
    ],
)
def test_ordinary_lines_stay_as_they_are(line: str) -> None:
    redactor = Redactor()
    assert redactor.line(line) == line and redactor.count == 0


@pytest.mark.parametrize(
    "name",
    [
        *("api-key", "--api-key", "HF_TOKEN", "OPENAI_API_KEY", "password", "vllm_api_key"),
        *("db_password", "my_token", "API_KEYS", "DB_CREDENTIAL", "SSL_KEY_PASSPHRASE"),
        *("DB_PASS", "MYSQL_PWD", "SIGNING_KEY", "s3_secret_key", "AWS_SECRET_ACCESS_KEY"),
        *("PGPASSWORD", "apiKey", "authToken", "auth_tokens", "REDISCLI_AUTH", "ansible_ssh_pass"),
    ],
)
def test_names_that_hold_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *("file", "max-num-batched-tokens", "tokens", "block_size", "key", "token_threshold"),
        *("tokenizer", "eos_token", "PWD", "OLDPWD", "passed", "bypass", "max_tokens", "key_file"),
        *("password_file", "output_tokens_per_s", "author", "kv_rank", "monkey", "secretary"),
    ],
)
def test_names_that_hold_none(name: str) -> None:
    assert not is_secret(name)


def test_what_is_taken_out_has_names_for_people() -> None:
    assert "private keys (PEM)" in names()
