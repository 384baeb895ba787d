"""The script download_weights.py, against servers on the loopback and with the hubs' clients."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Iterator

import pytest
from download_case import INDEX, checkpoint, content, environ, result, run, shards, words
from folder_server import FolderServer
from image_cases import mount_small_disk
from needs import needs
from weights_server import COMMIT, LARGE, REPOSITORY, WeightsServer, sha256

from hostkit.base.health import wait_until
from omnikit.weights.download.types import staging

pytestmark = pytest.mark.slow
FIRST = "model-00001-of-000003.safetensors"
READ = {"config.json", INDEX, "SHA256SUMS", "SHA256SUMS.txt", "sha256sum.txt", "sha256sums.txt"}


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    made = WeightsServer(checkpoint())
    yield made
    made.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "model"


def source(server: WeightsServer, kind: str) -> list[str]:
    if kind == "url":
        return [f"--source={server.folder}"]
    endpoint = f"--set=weights.download.endpoint={server.url}"
    return [f"--source={kind}", f"--repository={REPOSITORY}", endpoint]


@pytest.mark.parametrize("kind", ["huggingface", "modelscope", "url"])
def test_a_second_run_changes_nothing_and_fetches_nothing(
    server: WeightsServer, target: Path, kind: str
) -> None:
    words = source(server, kind)
    planned = result(target, *words, "--dry-run")
    assert planned["result"] == "would be downloaded" and not target.exists()
    assert planned["needed_bytes"] == sum(map(len, checkpoint().values())) < planned["free_bytes"]
    assert {one["action"] for one in planned["files"]} == {"fetch"}
    done = result(target, *words)
    assert done["result"] == "downloaded" and done["headers_checked"] == 3
    assert content(target) == checkpoint()
    assert done["unpublished"] == ([] if kind != "url" else sorted(checkpoint()))
    times = {path: path.stat().st_mtime_ns for path in target.iterdir() if path.is_file()}
    server.asked.clear()
    again = result(target, *words)
    assert again["result"] == "unchanged"
    # What names the files of a plain address is read, small as it is.
    assert set(server.fetched()) <= (READ if kind == "url" else set())
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert done["revision"] == {"huggingface": COMMIT, "modelscope": "master", "url": ""}[kind]


def test_a_folder_is_a_source_too(target: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mirror"
    (folder / "sub").mkdir(parents=True)
    for name, data in checkpoint().items():
        (folder / name).write_bytes(data)
    (folder / "sub" / "note.txt").write_text("more")
    lines = [f"{sha256(data)}  {name}\n" for name, data in checkpoint().items()]
    (folder / "SHA256SUMS").write_text("".join(lines))
    done = result(target, f"--source={folder.as_uri()}")
    assert done["result"] == "downloaded"
    assert done["unpublished"] == ["sub/note.txt"]
    assert (target / "sub" / "note.txt").read_text() == "more"
    assert (
        run(target, f"--source={folder}")
        .stdout.rstrip()
        .splitlines()[-1]
        .startswith(f"{target}: unchanged: 8 files")
    )
    (folder / FIRST).write_bytes(bytes(len(checkpoint()[FIRST])))
    told = run(tmp_path / "other", f"--source={folder}", code=1).stderr
    assert f"{FIRST} is not what was published: its hash is sha256:" in told


def test_source_and_target_in_each_other_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for target, source in ((folder / "sub", folder), (tmp_path, folder)):
        told = run(target, f"--source={source.as_uri()}", code=2).stderr
        assert "lies in the" in told and "choose a --target beside the source" in told
    assert {path.name for path in tmp_path.rglob("*")} == {"mirror", "config.json"}


def test_an_address_may_have_blanks_and_any_script(tmp_path: Path) -> None:
    folder = tmp_path / "web" / "my models" / "模型"
    folder.mkdir(parents=True)
    for name, data in checkpoint().items():
        (folder / name).write_bytes(data)
    server = FolderServer(tmp_path / "web")
    try:
        run(tmp_path / "a", f"--source={server.url}/my models/模型")
        run(tmp_path / "b", f"--source={server.url}/my%20models/%E6%A8%A1%E5%9E%8B/")
    finally:
        server.close()
    assert content(tmp_path / "a") == content(tmp_path / "b") == checkpoint()


def test_a_cut_connection_goes_on_where_it_was_cut(server: WeightsServer, target: Path) -> None:
    server.faults[FIRST] = ["cut:100000", "503", "cut:50000", "429"]
    done = run(target, *source(server, "huggingface"))
    assert content(target) == checkpoint()
    assert server.ranges(FIRST) == [None, *["bytes=100000-"] * 2, *["bytes=150000-"] * 2]
    assert "the connection ended after 100000 of" in done.stderr
    assert "HTTP 503" in done.stderr and "HTTP 429" in done.stderr


@pytest.mark.parametrize("kind", ["huggingface", "modelscope", "url"])
def test_a_list_that_cannot_be_had_is_asked_for_again(
    server: WeightsServer, target: Path, kind: str
) -> None:
    server.faults["list"] = ["503", "502"]
    done = run(target, *source(server, kind))
    assert done.stderr.count("next attempt in") == 2 and content(target) == checkpoint()
    server.faults["list"] = ["503"] * 3
    told = run(target, *source(server, kind), code=1).stderr
    setting = "source" if kind == "url" else "endpoint"
    assert "also at attempt 3" in told and f"weights.download.{setting}" in told


def test_parts_that_the_source_has_no_more_are_cleared(server: WeightsServer, target: Path) -> None:
    server.files["extra.safetensors"] = server.files[FIRST]
    server.faults["extra.safetensors"] = ["404"]
    run(target, *source(server, "huggingface"), code=1)
    old = staging(target) / "gone.safetensors.incomplete"
    old.write_bytes(b"part")
    run(target, *source(server, "huggingface"))
    assert {path.name for path in staging(target).iterdir()} == {"lock", "record.json"}


def test_a_server_without_ranges_is_read_from_the_beginning(
    server: WeightsServer, target: Path
) -> None:
    server.faults[FIRST] = ["cut:100000", "whole"]
    run(target, *source(server, "url"))
    assert content(target) == checkpoint()


def test_a_file_that_changes_in_between_is_never_put_together(
    server: WeightsServer, target: Path
) -> None:
    """No hashes are published; the ETag tells that the rest is of another file."""
    server.faults[FIRST] = ["cut:100000", "503", "503"]
    told = run(target, *source(server, "url"), code=1).stderr
    assert "HTTP 503 Service Unavailable, also at attempt 3" in told and "HTTPS_PROXY" in told
    data = server.files[FIRST]
    server.files[FIRST] = data[:50_000] + b"\x55" + data[50_001:]
    result(target, *source(server, "url"))
    assert content(target) == server.files


def test_wrong_content_is_fetched_once_more_and_never_shown(
    server: WeightsServer, target: Path
) -> None:
    server.faults[FIRST] = ["wrong"]
    assert "fetching it again" in run(target, *source(server, "modelscope")).stderr
    assert content(target) == checkpoint()
    other = target.with_name("other")
    server.faults[FIRST] = ["wrong"] * 2
    told = run(other, *source(server, "modelscope"), code=1).stderr
    assert f"published is sha256:{sha256(checkpoint()[FIRST])}" in told
    assert not {FIRST, "config.json", INDEX} & set(content(other))


def test_killed_at_any_time_it_continues(server: WeightsServer, target: Path) -> None:
    server.faults[FIRST] = ["hold:200000"]
    given = words(target, *source(server, "huggingface"))
    process = subprocess.Popen(given, env=environ(target.parent), stderr=subprocess.DEVNULL)
    part = staging(target) / f"{FIRST}.incomplete"
    assert wait_until(lambda: part.exists() and part.stat().st_size == 200_000, 60, 0.02)
    assert wait_until(lambda: len(content(target)) == 4, 60, 0.02)
    told = run(target, *source(server, "huggingface"), code=1).stderr
    assert f"a download into {target} is under way: pid {process.pid}" in told
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert not {FIRST, "config.json", INDEX} & set(content(target))
    server.asked.clear()
    planned = result(target, *source(server, "huggingface"), "--dry-run")
    actions = {one["name"]: one["action"] for one in planned["files"]}
    assert actions[FIRST] == actions["config.json"] == actions[INDEX] == "continue"
    assert planned["needed_bytes"] == len(checkpoint()[FIRST]) - 200_000
    assert result(target, *source(server, "huggingface"))["result"] == "downloaded"
    assert [one for one in server.asked if one[0] == "GET"] == [("GET", FIRST, "bytes=200000-")]
    assert content(target) == checkpoint()
    assert not list(staging(target).glob("*.incomplete*"))


def test_an_interrupt_ends_it_at_once_though_the_server_is_silent(
    server: WeightsServer, target: Path
) -> None:
    server.faults[FIRST] = ["hold:1000"]
    given = words(target, *source(server, "url"))
    process = subprocess.Popen(given, env=environ(target.parent), stderr=subprocess.PIPE, text=True)
    assert server.held.wait(60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)  # the server's timeout is 30 s
    assert process.returncode == 130, said
    assert "interrupted" in said and "is kept" in said and "Traceback" not in said
    assert result(target, *source(server, "url"))["result"] == "downloaded"


def test_damage_is_found_and_mended_and_edits_are_kept(server: WeightsServer, target: Path) -> None:
    given = source(server, "huggingface")
    run(target, *given)
    data = bytearray(checkpoint()[FIRST])
    data[-1] ^= 1
    (target / FIRST).write_bytes(data)
    server.asked.clear()
    done = result(target, *given)
    assert {one["name"]: one["action"] for one in done["files"]}[FIRST] == "replace"
    assert server.fetched() == [FIRST] and content(target) == checkpoint()
    status = (target / FIRST).stat()  # damage that leaves the time as it was: only reading tells
    (target / FIRST).write_bytes(data)
    os.utime(target / FIRST, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert result(target, *given)["result"] == "unchanged"
    assert result(target, *given, "--verify")["result"] == "downloaded"
    assert content(target) == checkpoint()
    (target / "config.json").write_text('{"edited": true}')
    told = run(target, *given).stdout
    assert "changed here and kept (--replace fetches them again): config.json" in told
    assert (target / "config.json").read_text() == '{"edited": true}'
    run(target, *given, "--replace")
    assert content(target) == checkpoint()


def test_files_of_somebody_else_are_not_replaced(server: WeightsServer, target: Path) -> None:
    target.mkdir()
    (target / "config.json").write_text("{}")
    told = run(target, *source(server, "url"), code=2).stderr
    assert "has other files of these names: config.json" in told and "--replace" in told
    assert content(target) == {"config.json": b"{}"}
    run(target, *source(server, "url"), "--replace")
    assert content(target) == checkpoint()


def test_files_that_are_right_are_taken_over(server: WeightsServer, target: Path) -> None:
    target.mkdir()
    for name, data in checkpoint().items():
        (target / name).write_bytes(data)
    assert result(target, *source(server, "modelscope"))["result"] == "unchanged"
    assert not server.fetched()
    (target / INDEX).unlink()
    assert result(target, *source(server, "huggingface"))["fetched_bytes"] == len(
        checkpoint()[INDEX]
    )
    assert server.fetched() == [INDEX]


def test_a_new_revision_replaces_what_changed(server: WeightsServer, target: Path) -> None:
    run(target, *source(server, "huggingface"))
    server.files["tokenizer_config.json"] = b'{"new": true}'
    del server.files["configuration_deepseek.py"]
    server.asked.clear()
    done = result(target, *source(server, "huggingface"))
    assert server.fetched() == ["tokenizer_config.json"]
    assert done["stale"] == ["configuration_deepseek.py"]
    assert content(target) == {**checkpoint(), **server.files}


@pytest.mark.parametrize("kind", ["huggingface", "modelscope", "url"])
def test_a_name_that_is_wrong_is_told_at_once(
    server: WeightsServer, target: Path, kind: str
) -> None:
    given = source(server, kind)
    wrong = [one.replace(REPOSITORY, "no/such").replace("/files", "/none") for one in given]
    told = run(target, *wrong, code=1).stderr
    assert "attempt" not in told and not target.exists()
    assert ("HTTP 404" in told) or ("has no checksums (SHA256SUMS)" in told)
    assert "What to do:" in told


@pytest.mark.parametrize("kind", ["huggingface", "modelscope"])
def test_an_endpoint_that_is_no_hub_is_told_at_once(
    server: WeightsServer, target: Path, kind: str
) -> None:
    server.page = b"<html>log in</html>"
    told = run(target, *source(server, kind), code=1).stderr
    assert "answers, but not as this hub does" in told and "weights.download.endpoint" in told
    assert "attempt" not in told
    wrong = environ(target.parent, HF_ENDPOINT="no-scheme", MODELSCOPE_DOMAIN="no:host:x")
    told = run(target, *source(server, kind)[:2], code=1, env=wrong).stderr
    assert "is no web address" in told and "attempt" not in told and not target.exists()


def test_a_missing_revision_is_told(server: WeightsServer, target: Path) -> None:
    told = run(target, *source(server, "huggingface"), "--revision=v9", code=1).stderr
    assert "repository or revision (HTTP 404)" in told
    told = run(target, *source(server, "modelscope"), "--revision=v9", code=1).stderr
    assert "the server says: no such revision" in told
    run(target, *source(server, "huggingface"), f"--revision={COMMIT}")
    assert content(target) == checkpoint()


@pytest.mark.parametrize("kind", ["huggingface", "modelscope"])
def test_a_token_comes_from_a_file_or_a_variable_and_goes_nowhere_else(
    server: WeightsServer, target: Path, kind: str
) -> None:
    server.token = "hf_verysecrettoken"
    given = source(server, kind)
    told = run(target, *given, code=1).stderr
    assert "HTTP 40" in told and "weights.download.token" in told
    by_variable = [*given, "--set=weights.download.token={variable: MY_TOKEN}"]
    wrong = environ(target.parent, MY_TOKEN="hf_wrongtoken")
    told = run(target, *by_variable, code=1, env=wrong).stderr
    assert "HTTP 40" in told and "hf_wrongtoken" not in told
    right = environ(target.parent, MY_TOKEN=server.token)
    done = run(target, *by_variable, "--json", env=right)
    assert server.token not in done.stdout + done.stderr
    assert content(target) == checkpoint() and server.secrets_at_cdn == []
    for path in staging(target).iterdir():
        assert server.token.encode() not in path.read_bytes()
    file = target.with_name("token")
    file.write_text(f"{server.token}\n")
    file.chmod(stat.S_IRUSR)
    run(target.with_name("b"), *given, f"--set=weights.download.token={{file: {file}}}")
    assert content(target.with_name("b")) == checkpoint()


def test_a_gated_repository_is_explained(server: WeightsServer, target: Path) -> None:
    server.gated = True
    told = run(target, *source(server, "huggingface"), code=1).stderr
    assert "HTTP 403" in told and "accept its terms" in told


def test_patterns_choose_and_say_what_they_leave_out(server: WeightsServer, target: Path) -> None:
    server.files["pytorch_model.bin"] = bytes(LARGE)
    given = source(server, "modelscope")
    done = run(target, *given, f"--exclude={FIRST}", "--exclude=*.bin")
    assert "left out by include and exclude: 2 files" in done.stdout
    assert set(content(target)) == set(checkpoint()) - {FIRST}
    other = target.with_name("other")
    run(other, *given, "--include=*.json")
    assert {Path(name).suffix for name in content(other)} == {".json"}
    told = run(other, *given, "--include=*.nothing", code=2).stderr
    assert "the patterns choose none of its 8 files" in told


def test_an_incomplete_checkpoint_at_the_source_never_looks_complete(
    server: WeightsServer, target: Path
) -> None:
    server.files[FIRST] = checkpoint()[FIRST][:-1]
    assert "the file is cut" in run(target, *source(server, "huggingface"), code=1).stderr
    server.files[FIRST] = checkpoint()[FIRST]
    run(target, *source(server, "huggingface"), "--replace")
    assert content(target) == checkpoint()


@pytest.mark.parametrize("kind", ["huggingface", "modelscope", "url", "folder"])
def test_a_shard_that_the_source_has_not_is_told_before_any_is_fetched(
    server: WeightsServer, target: Path, tmp_path: Path, kind: str
) -> None:
    del server.files[FIRST]
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name, data in server.files.items():
        (folder / name).write_bytes(data)
    given = [f"--source={folder}"] if kind == "folder" else source(server, kind)
    missing = f"is no whole checkpoint: {FIRST} is missing, the index names it"
    if kind == "url":
        missing = f"does not give 1 of its files: {FIRST} (HTTP 404, the index names it)"
    assert missing in run(target, *given, "--dry-run", code=1).stderr and not target.exists()
    assert missing in run(target, *given, code=1).stderr
    assert content(target) == {} and set(server.fetched()) <= {INDEX, *READ}
    assert missing in run(target, *given, "--dry-run", code=1).stderr  # by the one that is here
    run(target, *given, f"--exclude={FIRST}")
    assert content(target) == {name: checkpoint()[name] for name in server.files}


def test_a_dry_run_asks_for_the_index_again_when_the_network_fails(
    server: WeightsServer, target: Path
) -> None:
    server.faults[INDEX] = ["503", "cut:100"]
    told = run(target, *source(server, "huggingface"), "--dry-run")
    assert told.stderr.count("next attempt in") == 2 and "would be downloaded" in told.stdout


@pytest.mark.parametrize("kind", ["huggingface", "url"])
def test_a_source_without_a_checkpoint_is_no_success(
    server: WeightsServer, target: Path, kind: str
) -> None:
    server.files = {"README.md": b"a model", "LICENSE": b"x"}
    if kind == "url":
        server.files["SHA256SUMS"] = f"{sha256(b'a model')}  README.md\n".encode()
    for more in ([], ["--dry-run"]):
        told = run(target, *source(server, kind), *more, code=1).stderr
        assert "is no whole checkpoint: it lacks config.json; it has " in told
        assert "README.md" in told and "--include" in told and not target.exists()
    run(target, *source(server, kind), "--include=README.md")
    assert content(target) == {"README.md": b"a model"}


def test_a_link_to_nothing_in_the_sources_folder_is_told(target: Path, tmp_path: Path) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    for name, data in checkpoint().items():
        (folder / name).write_bytes(data)
    (folder / "tokenizer.model").symlink_to("../gone")
    told = run(target, f"--source={folder}", code=1).stderr
    assert "does not give 1 of its files: tokenizer.model (a link that leads to no file" in told
    run(tmp_path / "b", f"--source={folder}", "--exclude=tokenizer.model")
    assert content(tmp_path / "b") == checkpoint()
    (folder / "SHA256SUMS").write_text(f"{sha256(b'x')}  tokenizer.model\n")
    web = FolderServer(folder)
    try:
        told = run(target, f"--source={web.url}", code=1).stderr
        assert "the checksums name: tokenizer.model (HTTP 404)" in told
        assert not target.exists()
    finally:
        web.close()


@pytest.mark.parametrize("status", [403, 405])
def test_a_server_that_refuses_head_gives_all_files(
    target: Path, tmp_path: Path, status: int
) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    for name, data in checkpoint().items():
        (folder / name).write_bytes(data)
    web = FolderServer(folder, head=status)
    try:
        assert result(target, f"--source={web.url}")["result"] == "downloaded"
        assert result(target, f"--source={web.url}")["result"] == "unchanged"
    finally:
        web.close()
    assert content(target) == checkpoint()


def test_without_checksums_it_is_said_what_was_looked_for(
    server: WeightsServer, target: Path
) -> None:
    config = json.loads(server.files["config.json"])
    config["auto_map"] = {
        "AutoConfig": "configuration_deepseek.DeepseekV3Config",
        "AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM",
    }
    server.files["config.json"] = json.dumps(config).encode()
    server.files["modeling_deepseek.py"] = b"code"
    for more in (["--dry-run"], []):
        told = run(target, *source(server, "url"), *more).stderr
        assert "only the usual names and those of the index were looked for" in told
        assert "sha256sum * > SHA256SUMS" in told
    assert content(target) == server.files


def test_checksums_of_a_file_are_held_against_everything(
    server: WeightsServer, target: Path, tmp_path: Path
) -> None:
    sums = tmp_path / "sums"
    sums.write_text(f"{'0' * 64} *{FIRST}\n")
    told = run(target, *source(server, "url"), f"--checksums={sums}", code=1).stderr
    assert f"published is sha256:{'0' * 64}" in told
    sums.write_text("")
    told = run(target, *source(server, "url"), f"--checksums={sums}", code=2).stderr
    assert f"{sums}: found no checksum in it" in told
    sums.write_text("no checksum\n")
    told = run(target, *source(server, "url"), f"--checksums={sums}", code=2).stderr
    assert f"{sums}:1: found 'no checksum'" in told


@pytest.mark.parametrize("kind", ["huggingface", "modelscope", "url"])
def test_checksums_of_files_that_the_source_has_not_are_never_passed_over(
    server: WeightsServer, target: Path, tmp_path: Path, kind: str
) -> None:
    sums = tmp_path / "sums"
    sums.write_text(f"{'0' * 64}  DeepSeek-R1/config.json\n")
    told = run(target, *source(server, kind), f"--checksums={sums}", code=1).stderr
    assert "lacks 1 files that the checksums name: DeepSeek-R1/config.json" in told
    assert not target.exists()
    lines = [f"{sha256(data)}  {name}\n" for name, data in checkpoint().items()]
    sums.write_text("".join(lines))
    run(target, *source(server, kind), f"--checksums={sums}")
    assert content(target) == checkpoint()


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (["--source=modelscope"], "expected a repository's name"),
        (["--source=huggingface", "--repository=one"], "found one, expected a repository's name"),
        (["--source=/no/such/folder"], "there is no such folder"),
        (["--source=https://me:secret@host/x"], "weights.download.token"),
        (["--source=https://host/x?token=secret@"], "found an address with a query"),
        (["--source=host/x?token=secret@"], "there is no such folder"),
        (["--source=htp://host/x"], "known are http://, https:// and file://"),
        (["--source=file://web/x"], "found file: with the host web"),
        (["--source=/no/such", "--target=~nosuch/x"], "found ~nosuch, and there is no such user"),
        (
            ["--source=/no/such", "--checksums=~nosuch/x"],
            "found ~nosuch, and there is no such user",
        ),
        (["--source=https://host/x", "--repository=a/b"], "is no hub"),
        (["--set=weights.download.workers=0"], "weights.download.workers"),
        (["--set=weights.download.token=hf_abc"], "a reference to the secret"),
    ],
)
def test_wrong_input_is_refused(target: Path, given: list[str], what: str) -> None:
    told = run(target, *given, code=2).stderr
    assert what in told and "secret@" not in told and not target.exists()


def test_a_full_disk_is_told_before_and_in_the_middle(
    server: WeightsServer, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    needs("mount", root=True)
    mount_small_disk(disk, 4)
    try:
        told = run(disk / "model", *source(server, "url"), code=2).stderr
        assert "needs 6.6 MiB more and 1.0 GiB that stay free, 4.0 MiB are free" in told
        assert content(disk) == {}
        server.files = {name: checkpoint()[name] for name in [*shards(), INDEX]}
        server.lengths = False  # so that nobody can know before
        more = ["--set=weights.download.free_mib=0", "--include=*.safetensors"]
        told = run(disk / "model", *source(server, "url"), *more, code=1).stderr
        assert "the disk is full; what was fetched is kept" in told
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        run(disk / "model", *source(server, "url"), *more)
        assert content(disk / "model") == {name: checkpoint()[name] for name in shards()}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_environments_proxy_is_used(server: WeightsServer, target: Path) -> None:
    proxied = environ(target.parent, http_proxy=server.url, no_proxy="")
    run(target, "--source=http://models.example/files", env=proxied)
    assert content(target) == checkpoint()


def test_the_task_hands_its_options_on(server: WeightsServer, target: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    task = ["invoke", "download-weights", f"--source={server.folder}", f"--target={target}"]
    more = ["--include=*.json", "--include=*.py", "--dry-run", "--json"]
    argv = [words(target)[0], "-m", *task, *more]
    done = subprocess.run(
        argv, capture_output=True, text=True, cwd=root, env=environ(target.parent), timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert {Path(one["name"]).suffix for one in json.loads(done.stdout)["files"]} == {
        ".json",
        ".py",
    }
    assert not target.exists()
