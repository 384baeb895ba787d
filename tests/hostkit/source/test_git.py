"""What git may be asked for, how a log-in reaches it, and what its failures mean."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from source_cases import commit, git

from hostkit.base.command import Ended
from hostkit.base.errors import ActionError, InputError
from hostkit.source import git as source_git


@pytest.mark.parametrize(
    "url",
    [
        "https://gitee.com/omniai/omniinfer.git",
        "http://127.0.0.1:8080/a.git",
        "ssh://git@host:22/a/b.git",
        "git@github.com:vllm-project/vllm.git",
        "git://host/a",
        "file:///srv/a.git",
        "/srv/a.git",
    ],
)
def test_addresses_that_may_be_cloned_from(url: str) -> None:
    source_git.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=touch",
        "ext::sh -c date",
        "fd::17",
        "host:-x",
        "relative/path",
        "https://a b",
        "ftp://host/a",
        "",
    ],
)
def test_hostile_addresses_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="no address to clone from"):
        source_git.check_url(url)


@pytest.mark.parametrize("ref", ["v0.9.0", "main", "release/0.4", "refs/heads/x", "a" * 40])
def test_references_that_may_be_asked_for(ref: str) -> None:
    source_git.check_ref(ref)


@pytest.mark.parametrize(
    "ref",
    ["--upload-pack=touch /tmp/x", "-v", "a b", "a..b", "a:b", "+a", "a~1", "@{u}", "a.lock", "a/"],
)
def test_hostile_references_are_refused(ref: str) -> None:
    with pytest.raises(InputError, match="not a tag, branch or commit"):
        source_git.check_ref(ref)


def test_a_password_goes_by_a_variable_and_not_in_the_address() -> None:
    source = source_git.source("https://me:s%40cret@host:444/a.git")
    assert source.url == "https://host:444/a.git"
    assert source.env["GIT_CONFIG_KEY_0"] == "http.https://host:444/a.git.extraHeader"
    value = source.env["GIT_CONFIG_VALUE_0"].rpartition(" ")[2]
    assert base64.b64decode(value).decode() == "me:s@cret"
    for url in ("ssh://git@host/a", "https://host/a", "git@host:a"):
        assert source_git.source(url) == source_git.Source(url, {})


def test_what_is_shown_has_no_log_in() -> None:
    text = "fatal: unable to access 'https://me:secret@host/a.git/': no"
    assert source_git.hide(text) == "fatal: unable to access 'https://host/a.git/': no"
    assert source_git.hide("git@host:a") == "git@host:a"


def test_the_same_place_is_known_by_any_spelling() -> None:
    assert source_git.same("https://u:p@host/a.git", "https://host/a/")
    assert source_git.same("file:///srv/a", "/srv/a.git")
    assert not source_git.same("https://host/a", "https://host/b")


# Each: what git said (recorded from git 2.39), the kind, a part of the explanation.
_SAID = [
    (
        "fatal: unable to access 'https://nonexistent.invalid/x/': Could not resolve host: none",
        "network",
        "cannot be reached",
    ),
    (
        "fatal: unable to connect to 127.0.0.1:\n127.0.0.1[0]: errno=Connection refused",
        "network",
        "cannot be reached",
    ),
    (
        "error: RPC failed; curl 18 transfer closed with outstanding read data remaining\n"
        "fetch-pack: unexpected disconnect while reading sideband packet\nfatal: early EOF",
        "network",
        "was cut",
    ),
    (
        "fatal: unable to access 'http://h/a/': The requested URL returned error: 503",
        "network",
        "cannot be reached",
    ),
    ("fatal: repository 'http://h/none.git/' not found", "refused", "no such repository"),
    (
        "fatal: '/none' does not appear to be a git repository\n"
        "fatal: Could not read from remote repository.",
        "refused",
        "no such repository",
    ),
    (
        "fatal: could not read Username for 'https://github.com': terminal prompts disabled",
        "refused",
        "does not let this host have it",
    ),
    (
        "git@github.com: Permission denied (publickey).\n"
        "fatal: Could not read from remote repository.",
        "refused",
        "does not let this host have it",
    ),
    (
        "Host key verification failed.\nfatal: Could not read from remote repository.",
        "refused",
        "host key",
    ),
    (
        "fatal: unable to access 'https://h/': server certificate verification failed.",
        "refused",
        "certificate",
    ),
    ("fatal: remote error: upload-pack: not our ref 0123", "refused", "no such commit"),
    (
        "fatal: write error: No space left on device\nfatal: fetch-pack: invalid index-pack output",
        "space",
        "no space",
    ),
    ("fatal: something new", "refused", "git failed"),
]


@pytest.mark.parametrize(("said", "kind", "why"), _SAID)
def test_what_a_failure_means(said: str, kind: str, why: str) -> None:
    found = source_git.fault(Ended(128, said), "https://me:secret@h/a.git", Path("/srv/a"))
    assert found.kind == kind and why in found.why
    assert "secret" not in found.line() + found.todo


def test_silence_is_a_fault_of_the_network() -> None:
    assert source_git.fault(Ended(-15, "", stalled=True), "/a").kind == source_git.NETWORK


def test_without_git_the_error_says_how_to_install_it(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="git is not installed") as caught:
        source_git.program(5)
    assert "apt-get install git" in str(caught.value)


def test_a_quick_question_and_its_failure(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    here = commit(tmp_path)
    assert source_git.ask(tmp_path, "rev-parse", "HEAD", timeout_s=20).strip() == here
    with pytest.raises(ActionError, match="none") as caught:
        source_git.ask(tmp_path, "rev-parse", "none", timeout_s=20)
    assert caught.value.where == str(tmp_path)


def test_nothing_in_the_folder_starts_programs(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    proof = tmp_path / "proof"
    hook = tmp_path / ".git/hooks/post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {proof}\n")
    hook.chmod(0o755)
    git(tmp_path, "config", "core.fsmonitor", str(hook))
    source_git.ask(tmp_path, "status", timeout_s=20)
    source_git.ask(tmp_path, "checkout", "--detach", "HEAD", timeout_s=20)
    assert not proof.exists()
    subprocess.run(["git", "-C", str(tmp_path), "checkout", "-q", "--detach", "HEAD"], check=True)
    assert proof.exists()  # the hook itself works


def test_a_folder_without_a_clone_is_not_taken_for_one_above_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    below = tmp_path / "below"
    below.mkdir()
    with pytest.raises(ActionError, match="git failed"):
        source_git.ask(below, "rev-parse", "HEAD", timeout_s=20)
