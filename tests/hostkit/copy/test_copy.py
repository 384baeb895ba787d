"""A copy of a source tree on a host: what differs, and whether it is what it should be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from code_cases import HOSTILE, bring, copied, given, listing, make_source

from hostkit.base.errors import ActionError, InputError
from hostkit.copy import copy, tree
from hostkit.copy import record as copy_record

LEFT_OUT = (b"build/dist", b"omni/__pycache__", b"omni.egg-info")


def like(source: Path, target: Path) -> bool:
    """Whether the target is the source, without what is left out."""
    wanted = {
        path: one
        for path, one in listing(source).items()
        if not any(path == out or path.startswith(out + b"/") for out in LEFT_OUT)
    }
    return listing(target) == wanted


@pytest.mark.needs("rsync")
def test_a_first_copy_then_nothing(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    first = copied(source, target)
    assert first["changed"] and not first["update"] and first["need_bytes"] > 0
    assert like(source, target)
    record = copy_record.read(str(target))
    assert record is not None and record["complete"] and record["source"] == f"test:{source}"
    # The index knows no file that is as young as these were; it may learn of them later.
    kept = [path for path in target.rglob("*") if not path.name.endswith("code.index.json")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    again = copied(source, target)
    assert again["changed"] is False and not any(again[kind] for kind in ("create", "delete"))
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    audit = (tmp_path / "t" / "work" / "audit.jsonl").read_text().splitlines()
    assert len(audit) == 1 and json.loads(audit[0])["owner"] == "ann"


@pytest.mark.needs("rsync")
def test_only_what_differs_is_named(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    copied(source, target)
    (source / "omni" / "engine.py").write_text("speed = 2\n")
    (source / "omni" / "old.py").unlink()
    (source / "omni" / "new.py").write_text("")
    (source / "build" / "build.sh").chmod(0o644)
    (source / "latest").unlink()
    (source / "latest").symlink_to("omni/new.py")
    for path in source.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    said = copied(source, target)
    assert said["create"] == ["omni/new.py"] and said["delete"] == ["omni/old.py"]
    assert said["update"] == ["latest", "omni/engine.py"] and said["mode"] == ["build/build.sh"]
    assert like(source, target)


@pytest.mark.needs("rsync")
def test_what_is_left_out_stays_on_the_host_but_bytecode_goes_with_its_source(
    tmp_path: Path,
) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    (source / "plugin").mkdir()
    (source / "plugin" / "a.py").write_text("")
    copied(source, target)
    own = ["build/dist/host.whl", "omni.egg-info/PKG-INFO", "omni/__pycache__/old.cpython-39.pyc"]
    own += ["omni/__pycache__/older.cpython-39.pyc", "plugin/__pycache__/a.cpython-39.pyc"]
    own += [".venv/bin/python", ".git/config"]
    for name in own:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("the host's")
    (source / "omni" / "old.py").unlink()
    (source / "plugin" / "a.py").unlink()
    (source / "plugin").rmdir()
    said = copied(source, target)
    assert said["delete"] == ["omni/old.py", "plugin/a.py", "plugin"]
    left = [name for name in own if (target / name).exists()]
    assert left == [own[0], own[1], own[3], own[5], own[6]]
    assert not (target / "plugin").exists()
    assert copied(source, target)["changed"] is False


@pytest.mark.needs("rsync")
def test_a_folder_that_holds_what_is_left_out_may_stay(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    (source / "sub").mkdir()
    (source / "sub" / "a.py").write_text("")
    copied(source, target)
    (target / "sub" / ".venv").mkdir()
    (source / "sub" / "a.py").unlink()
    (source / "sub").rmdir()
    assert copied(source, target)["delete"] == ["sub/a.py"]
    assert (target / "sub" / ".venv").is_dir()
    assert copied(source, target)["changed"] is False


@pytest.mark.needs("rsync")
def test_a_change_on_the_host_is_put_right(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    copied(source, target)
    path = target / "omni" / "engine.py"
    times = path.stat()
    path.write_text("speed = 9\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    (target / "stray").write_text("")
    said = copied(source, target)
    assert said["update"] == ["omni/engine.py"] and said["delete"] == ["stray"]
    assert like(source, target)


@pytest.mark.needs("rsync")
def test_kinds_change_into_each_other(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    (source / "a").write_text("a file")
    (source / "b").mkdir()
    (source / "b" / "in").write_text("")
    (source / "c").symlink_to("omni")
    copied(source, target)
    (source / "a").unlink()
    (source / "a").mkdir()
    (source / "a" / "in").write_text("")
    (source / "b" / "in").unlink()
    (source / "b").rmdir()
    (source / "b").write_text("a file")
    (source / "c").unlink()
    (source / "c").mkdir()
    copied(source, target)
    assert like(source, target)


@pytest.mark.needs("rsync")
def test_names_of_any_bytes(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    for name in HOSTILE:
        (source / os.fsdecode(name)).write_text("x")
    copied(source, target)
    assert like(source, target)
    for name in HOSTILE:
        (source / os.fsdecode(name)).unlink()
    assert len(copied(source, target)["delete"]) == len(HOSTILE)
    assert like(source, target)


@pytest.mark.needs("rsync")
def test_a_folder_of_somebody_else_is_refused_unless_it_may_be_replaced(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    target.mkdir(parents=True)
    (target / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"not empty.*\n?.*mine\.txt"):
        copy.begin(given(source, target))
    assert listing(target) == {b"mine.txt": ("f", 0o644, b"mine")}
    said = copy.begin(given(source, target, replace=True, dry_run=True))
    assert said["delete"] == ["mine.txt"] and (target / "mine.txt").exists()
    copied(source, target, replace=True)
    assert like(source, target)


@pytest.mark.parametrize("folder", ["/", "/usr/lib/omni", "/root", "/home/ann", "/data"])
def test_dangerous_folders_are_refused(tmp_path: Path, folder: str) -> None:
    source = make_source(tmp_path / "s")
    with pytest.raises(InputError, match="cannot be made a copy"):
        copy.begin(given(source, tmp_path / "t", dir=folder, replace=True))


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    said = copy.begin(given(source, target, dry_run=True))
    assert "setup.py" in said["create"] and said["changed"] is False
    assert not (tmp_path / "t").exists()


@pytest.mark.needs("rsync")
def test_a_transfer_that_was_cut_goes_on_and_is_never_taken_for_whole(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    copied(source, target)
    (source / "omni" / "engine.py").write_text("speed = 2\n")
    (source / "omni" / "new.py").write_text("")
    said = copy.begin(given(source, target))
    bring(source, target, {**said, "update": []})
    (target / "omni" / ".~tmp~").mkdir()
    (target / "omni" / ".~tmp~" / "engine.py").write_text("spe")
    record = copy_record.read(str(target))
    assert record is not None and record["complete"] is False
    with pytest.raises(ActionError, match=r"1 files are not .* omni/engine\.py"):
        copy.finish(given(source, target))
    record = copy_record.read(str(target))
    assert record is not None and record["complete"] is False
    assert copied(source, target)["update"] == ["omni/engine.py"]
    assert like(source, target) and not (target / "omni" / ".~tmp~").exists()


@pytest.mark.needs("rsync")
def test_all_files_are_read_again_when_that_is_asked_for(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    copied(source, target)
    index = copy_record.index(str(target))
    path = target / "setup.py"
    path.write_text("name = 'evil'\n")
    status = path.stat()
    # An index that lies stands for a disk that lost what was written to it.
    index["setup.py"] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    index["setup.py"].append(
        copy_record.recorded(copy_record.read(str(target)) or {})["setup.py"].content
    )
    copy_record.write_index(str(target), index)
    assert copy.begin(given(source, target, dry_run=True))["update"] == []
    assert copy.begin(given(source, target, dry_run=True, full=True))["update"] == ["setup.py"]


@pytest.mark.needs("rsync")
def test_a_full_disk_is_seen_before_anything_is_written(tmp_path: Path) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    parameters = given(source, target)
    files = tree.unpack(parameters["files"])
    files["setup.py"] = files["setup.py"]._replace(size=1 << 60)
    parameters["files"] = tree.pack(files)
    with pytest.raises(InputError, match=r"too full: \d+\.\d MiB are needed"):
        copy.begin(parameters)
    assert not target.exists()


def test_a_host_without_rsync_says_how_to_get_it(tmp_path: Path, monkeypatch) -> None:
    source, target = make_source(tmp_path / "s"), tmp_path / "t" / "code"
    monkeypatch.setenv("PATH", str(tmp_path))
    parameters = {"revision": None, "source": "x"}
    with pytest.raises(InputError, match=r"rsync is not installed on this host.*\n.*apt-get"):
        copy.begin({**given(source, target), **parameters})
    assert not target.exists()


@pytest.mark.parametrize(
    "folder",
    [
        *("/", "//", "/data", "/root", "/home", "/home/ann", "/home/ann/", "/opt", "/tmp", "/var"),
        *("/usr/lib", "/usr/local", "/usr/local/lib", "/usr/share/x", "/etc/omni", "/dev/shm"),
        *("/proc/1", "/run/user", "/lib/modules/x", "relative/path", "/data/../etc/x", ""),
        *("/data/omnikit", "/data/omnikit/", "/data/models", "/srv/me"),
    ],
)
def test_refused(folder: str) -> None:
    keep = ["/data/omnikit", "/data/models/DeepSeek"]
    assert copy.refusal(folder, keep, "/srv/me") is not None


@pytest.mark.parametrize(
    "folder",
    [
        *("/data/omniinfer", "/workspace/omniinfer", "/home/ann/omniinfer", "/root/omniinfer"),
        *("/usr/local/src/omni", "/usr/src/a/b", "/data/omnikit/code", "/data/od d'\"\n/x"),
    ],
)
def test_allowed(folder: str) -> None:
    assert copy.refusal(folder, ["/data/omnikit", "/data/models/DeepSeek"], "/root") is None


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/usr/lib")
    assert copy.refusal_here(str(tmp_path / "link"), []) == "it belongs to the system"
    (tmp_path / "work").mkdir()
    (tmp_path / "same").symlink_to(tmp_path)
    why = copy.refusal_here(str(tmp_path / "same"), [str(tmp_path / "work")])
    assert why is not None and "must stay" in why
    assert copy.refusal_here(str(tmp_path / "new"), []) is None


def test_folders_inside_each_other(tmp_path: Path) -> None:
    assert copy.nested(str(tmp_path), str(tmp_path / "a"))
    assert copy.nested(str(tmp_path / "a"), str(tmp_path))
    assert not copy.nested(str(tmp_path / "a"), str(tmp_path / "ab"))


def test_free_space_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert copy.nearest(str(tmp_path / "a" / "b")) == str(tmp_path)
    assert copy.free_bytes(str(tmp_path / "a" / "b")) > 0


def test_only_what_is_named_goes_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "t" / "a" / "__pycache__").mkdir(parents=True)
    (tmp_path / "t" / "a" / "__pycache__" / "x.pyc").write_text("")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("")
    (tmp_path / "t" / "link").symlink_to(tmp_path / "precious")
    copy.remove(str(tmp_path / "t"), ["link", "a", "gone already"])
    assert not any((tmp_path / "t").iterdir()) and (tmp_path / "precious" / "file").exists()


def test_a_folder_that_is_not_empty_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "a" / ".venv").mkdir(parents=True)
    with pytest.raises(ActionError, match=r"/a: .*not empty"), copy.named(str(tmp_path)):
        copy.remove(str(tmp_path), ["a"])


def test_what_rsync_left_goes(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "a"):
        (place / ".~tmp~").mkdir(parents=True)
        (place / ".~tmp~" / "half").write_text("")
    from hostkit.copy.tree import Entry

    copy.remove_unfinished(str(tmp_path), {"a": Entry("d", 0o755, 0, 0, "")})
    assert list(tmp_path.iterdir()) == [tmp_path / "a"] and not any((tmp_path / "a").iterdir())
