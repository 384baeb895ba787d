"""One clone, with real git: made, kept, moved, continued, refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from docker_host import wait_for
from git_servers import PASSWORD, USER, git_daemon, git_over_http
from image_cases import BreakingLine, mount_small_disk
from source_cases import commit, git

from hostkit.base.errors import ActionError, InputError
from hostkit.source import clone, clone_look
from hostkit.source.clone import Way
from hostkit.source.clone_look import Wanted

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
WAY = Way(attempts=3, delay_s=0.05, stall_s=20, free_mib=1)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository with the tags v1 and v2, and a later commit on its branch main."""
    folder = tmp_path / "repos" / "code"
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    for number in ("1", "2", "3"):
        (folder / "number").write_text(number)
        (folder / f"only{number}").write_text(number)
        commit(folder, number, tag=f"v{number}" if number != "3" else "")
    return folder


def of(folder: Path, name: str) -> str:
    return git(folder, "rev-parse", f"{name}^{{commit}}")


def wanted(tmp_path: Path, origin: Path, **more: Any) -> Wanted:
    given: dict[str, Any] = {
        "name": "code",
        "folder": tmp_path / "here" / "code",
        "urls": (f"file://{origin}",),
        "ref": "v1",
        "commit": None,
        "ours": (),
        "setting": "source.code",
    }
    return Wanted(**{**given, **more})


def state_of(folder: Path) -> Any:
    return clone_look.read_mark(folder).get("state")


def test_a_tag_is_cloned_shallow_with_its_name_and_a_second_run_asks_nobody(
    tmp_path: Path, origin: Path
) -> None:
    want = wanted(tmp_path, origin)
    done = clone.ensure(want, WAY)
    assert (done["action"], done["commit"]) == ("cloned", of(origin, "v1"))
    assert (want.folder / "number").read_text() == "1"
    assert git(want.folder, "rev-list", "--count", "HEAD") == "1"
    assert git(want.folder, "describe", "--tags") == "v1"  # the build checks it out by its name
    assert git(want.folder, "status", "--porcelain") == ""
    origin.rename(origin.with_name("gone"))
    assert clone.ensure(want, WAY)["action"] == "unchanged"


@pytest.mark.parametrize("ref", ["main", "refs/heads/main", "commit"])
def test_branches_and_commits(tmp_path: Path, origin: Path, ref: str) -> None:
    want = wanted(tmp_path, origin, ref=of(origin, "main") if ref == "commit" else ref)
    assert clone.ensure(want, WAY)["action"] == "cloned"
    assert (want.folder / "number").read_text() == "3"
    assert clone.ensure(want, WAY)["action"] == "unchanged"


def test_a_branch_that_went_on_is_followed_and_without_network_what_is_here_stays(
    tmp_path: Path, origin: Path
) -> None:
    want = wanted(tmp_path, origin, ref="main")
    with git_daemon(origin.parent) as port:
        url = f"git://127.0.0.1:{port}/code"
        want = wanted(tmp_path, origin, ref="main", urls=(url,))
        clone.ensure(want, WAY)
        new = commit(origin, "went on")
        assert clone.ensure(want, WAY)["action"] == "moved"
    done = clone.ensure(want, WAY)
    assert (done["action"], done["commit"]) == ("unchanged", new)
    assert "what is here stays" in done["note"]


def test_another_commit_is_moved_to(tmp_path: Path, origin: Path) -> None:
    clone.ensure(wanted(tmp_path, origin), WAY)
    want = wanted(tmp_path, origin, ref="v2")
    assert clone.ensure(want, WAY)["action"] == "moved"
    assert (want.folder / "number").read_text() == "2"
    assert git(want.folder, "status", "--porcelain") == ""


def test_somebodys_whole_clone_is_used_and_keeps_its_history(tmp_path: Path, origin: Path) -> None:
    want = wanted(tmp_path, origin, ref="v2")
    want.folder.parent.mkdir(parents=True)
    git(tmp_path, "clone", "--quiet", "--no-tags", f"file://{origin}", str(want.folder))
    assert clone.ensure(want, WAY)["action"] == "moved"
    assert not (want.folder / ".git/shallow").exists()
    assert git(want.folder, "rev-list", "--count", "origin/main") == "3"
    assert clone.ensure(want, WAY)["action"] == "unchanged"


def test_a_tag_that_is_missing_by_name_is_added(tmp_path: Path, origin: Path) -> None:
    want = wanted(tmp_path, origin, ref="v2", commit=None)
    want.folder.parent.mkdir(parents=True)
    git(tmp_path, "clone", "--quiet", "--no-tags", f"file://{origin}", str(want.folder))
    git(want.folder, "checkout", "--quiet", "--detach", of(origin, "v2"))
    assert clone.ensure(want, WAY)["action"] == "tagged"
    assert of(want.folder, "refs/tags/v2") == of(origin, "v2")


def test_the_pinned_commit_is_compared_before_anything_is_written(
    tmp_path: Path, origin: Path
) -> None:
    right = wanted(tmp_path, origin, commit=of(origin, "v1"))
    wrong = wanted(tmp_path, origin, commit=of(origin, "v2"))
    with pytest.raises(ActionError, match=f"v1 is {of(origin, 'v1')} there, source.code_commit"):
        clone.ensure(wrong, WAY)
    assert not wrong.folder.exists()
    assert clone.ensure(right, WAY)["action"] == "cloned"
    with pytest.raises(ActionError, match="code_commit"):
        clone.ensure(wrong, WAY)
    assert (right.folder / "number").read_text() == "1"


def test_a_clone_with_changes_is_left_alone_and_they_are_named(
    tmp_path: Path, origin: Path
) -> None:
    want = wanted(tmp_path, origin, ours=("dist",))
    clone.ensure(want, WAY)
    (want.folder / "dist").mkdir()
    (want.folder / "dist" / "ours.whl").write_text("x")
    assert clone.ensure(want, WAY)["action"] == "unchanged"
    (want.folder / "number").write_text("mine")
    (want.folder / "new file").write_text("mine")
    for ref in ("v1", "v2"):
        with pytest.raises(InputError) as caught:
            clone.ensure(wanted(tmp_path, origin, ref=ref, ours=("dist",)), WAY)
        assert "M number" in str(caught.value) and "?? new file" in str(caught.value)
        assert "stash --include-untracked" in str(caught.value)
    assert (want.folder / "number").read_text() == "mine"


def test_changes_of_our_own_build_are_put_away_only_where_it_moves(
    tmp_path: Path, origin: Path
) -> None:
    asked = []

    def settle(act: bool) -> bool:
        asked.append(act)
        if act:
            git(folder, "checkout", "--quiet", "--force")
        return True

    want = wanted(tmp_path, origin, settle=settle)
    folder = want.folder
    clone.ensure(want, WAY)
    (folder / "number").write_text("patched")
    assert clone.ensure(want, WAY)["action"] == "unchanged" and asked == [False]
    assert (folder / "number").read_text() == "patched"
    moved = clone.ensure(wanted(tmp_path, origin, ref="v2", settle=settle), WAY)
    assert moved["action"] == "moved" and (folder / "number").read_text() == "2"


@pytest.mark.parametrize("what", ["files", "file", "other clone", "work tree", "refs only"])
def test_a_folder_that_is_something_else_is_left_alone(
    tmp_path: Path, origin: Path, what: str
) -> None:
    want = wanted(tmp_path, origin)
    want.folder.parent.mkdir(parents=True)
    if what == "files":
        want.folder.mkdir()
        (want.folder / "thesis.txt").write_text("mine")
    elif what == "file":
        want.folder.write_text("mine")
    elif what == "other clone":
        git(tmp_path, "clone", "--quiet", f"file://{origin}", str(want.folder))
        git(want.folder, "remote", "set-url", "origin", "https://me:secret@host/other.git")
    elif what == "refs only":
        want.folder.mkdir()
        git(want.folder, "init", "--quiet")
        git(want.folder, "fetch", "--quiet", str(origin), "main:refs/heads/theirs")
    else:
        git(origin, "worktree", "add", "--quiet", "--detach", str(want.folder))
    with pytest.raises(InputError) as caught:
        clone.ensure(want, WAY)
    assert str(want.folder) in str(caught.value) and "secret" not in str(caught.value)
    assert state_of(want.folder) is None


def test_the_next_address_is_asked_when_one_refuses(tmp_path: Path, origin: Path, capsys) -> None:
    urls = (f"file://{tmp_path}/none", f"file://{origin}")
    done = clone.ensure(wanted(tmp_path, origin, urls=urls), WAY)
    assert done["from"] == urls[1]
    assert "there is no such repository; asking the next" in capsys.readouterr().err


def test_a_refusal_is_final_and_leaves_nothing(tmp_path: Path, origin: Path, capsys) -> None:
    want = wanted(tmp_path, origin, urls=(f"file://{tmp_path}/none",))
    with pytest.raises(ActionError, match="in 1 attempt"):
        clone.ensure(want, WAY)
    assert not want.folder.exists() and "attempt 2" not in capsys.readouterr().err
    want = wanted(tmp_path, origin, ref="v9")
    with pytest.raises(ActionError, match="no tag or branch v9") as caught:
        clone.ensure(want, WAY)
    assert "source.code_ref" in str(caught.value) and not want.folder.exists()


def test_a_hostile_reference_is_data_for_git(tmp_path: Path, origin: Path) -> None:
    want = wanted(tmp_path, origin, ref="--upload-pack=touch /tmp/omnikit-proof")
    with pytest.raises(ActionError, match="no tag or branch"):
        clone.ensure(want, WAY)
    assert not Path("/tmp/omnikit-proof").exists()


def test_too_little_space_is_said_before(tmp_path: Path, origin: Path) -> None:
    way = Way(attempts=1, delay_s=0, stall_s=20, free_mib=1e12)
    want = wanted(tmp_path, origin)
    with pytest.raises(InputError, match="free_mib"):
        clone.ensure(want, way)
    assert not want.folder.exists()
    clone.ensure(want, WAY)
    assert clone.ensure(want, way)["action"] == "unchanged"


def test_an_unreachable_server_is_asked_again_and_then_given_up(
    tmp_path: Path, origin: Path, capsys
) -> None:
    want = wanted(tmp_path, origin, urls=("git://127.0.0.1:1/code",))
    with pytest.raises(ActionError, match="in 3 attempts") as caught:
        clone.ensure(want, WAY)
    assert "git ls-remote git://127.0.0.1:1/code" in str(caught.value)
    assert "attempt 3 of 3 in 0.1 s" in capsys.readouterr().err and not want.folder.exists()


def test_a_log_in_is_used_and_shown_nowhere(tmp_path: Path, origin: Path, capsys) -> None:
    with git_over_http(origin.parent, busy=1) as address:
        url = f"http://{USER}:{PASSWORD}@{address}/code"
        want = wanted(tmp_path, origin, urls=(url,))
        done = clone.ensure(want, WAY)
        assert done["action"] == "cloned" and done["from"] == f"http://{address}/code"
        assert clone.ensure(want, WAY)["action"] == "unchanged"
        for wrong in (f"http://{address}/code", f"http://{USER}:wrong@{address}/code"):
            other = wanted(tmp_path, origin, urls=(wrong,), folder=tmp_path / "other")
            with pytest.raises(ActionError, match="does not let this host have it") as caught:
                clone.ensure(other, WAY)
            assert "in 1 attempt" in str(caught.value) and "wrong@" not in str(caught.value)
    assert PASSWORD not in capsys.readouterr().err
    for path in (want.folder / ".git").rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes()


@pytest.fixture
def large(origin: Path) -> Path:
    """The same repository with 8 MB that cannot be compressed in v3."""
    (origin / "large").write_bytes(os.urandom(8_000_000))
    commit(origin, "large", tag="v3")
    return origin


def test_a_line_that_breaks_in_the_middle(tmp_path: Path, large: Path, capsys) -> None:
    with git_daemon(large.parent) as port, BreakingLine(port, cut_after=2_000_000) as line:
        want = wanted(tmp_path, large, ref="v3", urls=(f"git://127.0.0.1:{line.port}/code",))
        assert clone.ensure(want, WAY)["action"] == "cloned"
        assert line.cuts == 1
    assert "the connection was cut; attempt 2 of 3" in capsys.readouterr().err
    assert (want.folder / "large").stat().st_size == 8_000_000
    assert not list((want.folder / ".git/objects/pack").glob("tmp_*"))


def test_a_server_that_says_nothing_is_not_waited_for(tmp_path: Path, origin: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes calls and never answers
        url = f"git://127.0.0.1:{listener.getsockname()[1]}/code"
        want = wanted(tmp_path, origin, urls=(url,))
        way = Way(attempts=1, delay_s=0, stall_s=0.5, free_mib=1)
        with pytest.raises(ActionError, match="nothing came for a long time"):
            clone.ensure(want, way)


@pytest.mark.parametrize("mib", [5, 10])  # full while fetching, and while checking out
def test_a_full_disk_is_named_and_the_next_run_goes_on(
    tmp_path: Path, large: Path, mib: int
) -> None:
    disk = tmp_path / "disk"
    mount_small_disk(disk, mib)
    try:
        want = wanted(tmp_path, large, ref="v3", folder=disk / "code")
        with pytest.raises(ActionError) as caught:
            clone.ensure(want, WAY)
        assert "no space is left on the disk" in str(caught.value)
        assert not list((want.folder / ".git/objects/pack").glob("tmp_*"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert clone.ensure(want, WAY)["commit"] == of(large, "v3")
        assert git(want.folder, "status", "--porcelain") == ""
    finally:
        subprocess.run(["umount", str(disk)], check=True)


_RUN = """
import sys
from pathlib import Path
from hostkit.source import clone
from hostkit.source.clone_look import Wanted
want = Wanted("code", Path(sys.argv[1]), (sys.argv[2],), sys.argv[3], None, (), "source.code")
print(clone.ensure(want, clone.Way(3, 0.05, 60, 1))["action"])
"""


def in_a_process(want: Wanted, **env: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", _RUN, str(want.folder), want.urls[0], want.ref]
    return subprocess.Popen(
        words,
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts"), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def killed_at(verb: str, want: Wanted, folder: Path, before: str = "") -> None:
    """Run it and kill it, with its git, while that git does something.

    The git in front is no double: the real one works, but stops before a verb and leaves the locks
    that a killed git leaves.
    """
    folder.mkdir()
    real = subprocess.run(["which", "git"], capture_output=True, text=True).stdout.strip()
    waits = folder / "waits"
    script = folder / "git"
    script.write_text(
        f'#!/bin/bash\nfor word in "$@"; do if [ "$word" = {verb} ]; then\n{before}\n'
        f"echo $$ > {waits}.new; mv {waits}.new {waits}; exec sleep 600\n"
        f'fi; done\nexec {real} "$@"\n'
    )
    script.chmod(0o755)
    process = in_a_process(want, PATH=f"{folder}:{os.environ['PATH']}")
    try:
        wait_for(waits.exists, f"git {verb} is reached")
        os.kill(int(waits.read_text()), 9)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_killed_while_fetching_the_next_run_goes_on(tmp_path: Path, origin: Path) -> None:
    want = wanted(tmp_path, origin)
    git_folder = want.folder / ".git"
    leave = f"touch {git_folder}/shallow.lock; echo half > {git_folder}/objects/pack/tmp_pack_1"
    killed_at("fetch", want, tmp_path / "bin", leave)
    assert state_of(want.folder) == clone_look.NEW
    assert clone.ensure(want, WAY)["commit"] == of(origin, "v1")
    assert git(want.folder, "status", "--porcelain") == ""
    assert not (git_folder / "objects/pack/tmp_pack_1").exists()


@pytest.mark.parametrize("there", ["nothing", "v1"])
def test_killed_while_checking_out_the_next_run_goes_on(
    tmp_path: Path, origin: Path, there: str
) -> None:
    if there == "v1":
        clone.ensure(wanted(tmp_path, origin), WAY)
    want = wanted(tmp_path, origin, ref="v2")
    # Half of the files are written, and the lock of the index is left.
    leave = f"touch {want.folder}/.git/index.lock; printf 2 > {want.folder}/only2"
    killed_at("checkout", want, tmp_path / "bin", leave)
    assert state_of(want.folder) == clone_look.MOVING
    assert clone.ensure(want, WAY)["action"] == "continued"
    assert (want.folder / "number").read_text() == "2"
    assert git(want.folder, "status", "--porcelain") == ""
    assert clone.ensure(want, WAY)["action"] == "unchanged"


def test_killed_while_checking_out_and_something_else_is_wanted_then(
    tmp_path: Path, origin: Path
) -> None:
    first, second = wanted(tmp_path, origin), wanted(tmp_path, origin, ref="v2")
    clone.ensure(first, WAY)
    leave = f"touch {first.folder}/.git/index.lock; printf 2 > {first.folder}/only2"
    killed_at("checkout", second, tmp_path / "bin", leave)
    assert clone.ensure(first, WAY)["commit"] == of(origin, "v1")
    assert git(first.folder, "status", "--porcelain") == ""
    assert not (first.folder / "only2").exists()


def test_killed_while_fetching_into_a_clone_its_files_stay_and_count(
    tmp_path: Path, origin: Path
) -> None:
    clone.ensure(wanted(tmp_path, origin), WAY)
    want = wanted(tmp_path, origin, ref="v2")
    killed_at("fetch", want, tmp_path / "bin", f"touch {want.folder}/.git/shallow.lock")
    assert state_of(want.folder) == clone_look.FETCHING
    (want.folder / "number").write_text("mine")
    with pytest.raises(InputError, match="M number"):
        clone.ensure(want, WAY)
    (want.folder / "number").write_text("1")
    assert clone.ensure(want, WAY)["action"] == "moved"


def test_the_commands_that_are_shown_name_no_password(tmp_path: Path, origin: Path) -> None:
    want = wanted(tmp_path, origin, urls=("https://me:secret@host/code.git",))
    shown = clone.plan_argvs(want)
    assert [words[-1] for words in shown][-1] == "FETCH_HEAD"
    assert "secret" not in str(shown) and "https://host/code.git" in str(shown)
    assert shown[3][-3:] == ["--", "https://host/code.git", "+refs/tags/v1:refs/tags/v1"]
