"""Keys as users write them down, and settings that nobody could keep: refused with their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from omnikit.access import targets
from omnikit.config import config
from omnikit.config.config import Config
from omnikit.topology.topology import make_plan

KEY, OTHER = "k-" + "a" * 30, "k-" + "b" * 30


def loaded(tmp_path: Path, text: str, *words: str) -> Config:
    file = tmp_path / "keys"
    file.write_text(text)
    given = [f"proxy.api_keys={{file: {file}}}", *words]
    return config.load("local", assignments=given, environ={})


def test_names_and_keys_in_their_order(tmp_path: Path) -> None:
    made = loaded(tmp_path, f"# ours\ntoolkit: {KEY}\n\nalice:{OTHER}\n")
    assert targets.named(made.settings) == {"toolkit": KEY, "alice": OTHER}
    entry = targets.entry(make_plan(made), made.settings)
    assert entry.key == KEY and KEY not in repr(entry)
    text = targets.proxy_file(made.settings)
    assert text is not None and KEY not in text.reveal() and str(text) == "[redacted]"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (KEY, "expected NAME: KEY"),
        (f"a b: {KEY}", "expected NAME: KEY"),
        ("short: abc", "the key of short is malformed"),
        (f"one: {KEY}x'; return", "the key of one is malformed"),
        (f"toolkit: {OTHER}", "stands twice"),
        (f"twice: {KEY}", "stands twice"),
    ],
)
def test_a_wrong_line_is_named_and_never_repeated(line: str, why: str, tmp_path: Path) -> None:
    made = loaded(tmp_path, f"toolkit: {KEY}\n{line}\n")
    with pytest.raises(InputError, match=why) as raised:
        targets.named(made.settings)
    assert f"{tmp_path}/keys:2" in str(raised.value)
    assert KEY not in str(raised.value) and OTHER not in str(raised.value)


def test_a_file_without_a_key_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no key"):
        targets.named(loaded(tmp_path, "# none\n").settings)


def test_plain_text_is_refused_without_being_repeated() -> None:
    for name in ("api_keys", "internal_key"):
        with pytest.raises(InputError, match="a reference to the secret") as raised:
            config.load("local", assignments=[f"proxy.{name}={KEY}"], environ={})
        assert KEY not in str(raised.value)


REFUSED = {
    "a kind without keys": ["proxy.kind=vllm-router"],
    "no proxy": ["topology={colocated: [{hosts: [local]}], prefill: [], decode: [], proxy: null}"],
    "half of TLS": ["proxy.api_keys=null", "proxy.tls.certificate=/a.crt"],
    "two keys for servers": [
        "proxy.internal_key={variable: X}",
        "server.env.VLLM_API_KEY={variable: Y}",
    ],
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_nobody_would_keep_is_refused_with_its_place(why: str, tmp_path: Path) -> None:
    made = loaded(tmp_path, f"a: {KEY}\n", *REFUSED[why])
    with pytest.raises(InputError) as raised:
        make_plan(made)
    assert "--set proxy." in str(raised.value), raised.value


def test_a_lone_server_may_have_its_own_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X", OTHER)
    words = ["proxy.api_keys=null", "proxy.internal_key={variable: X}", *REFUSED["no proxy"]]
    made = loaded(tmp_path, "", *words)
    plan = make_plan(made)
    assert targets.entry(plan, made.settings).key == OTHER
    [node] = plan.nodes
    assert node.command[-2:] == ("--middleware", "hostkit.access.guard.Guard")
    assert OTHER not in repr(plan)
