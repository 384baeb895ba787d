"""The jobs "source" and "build", up to who may work in the folder."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from source_cases import Sources, git, make_sources, parameters

from hostkit.agent import jobs
from hostkit.base.errors import ActionError, InputError
from hostkit.source import source_jobs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return make_sources(tmp_path_factory.mktemp("repos"))


def test_both_sources_are_fetched_and_a_second_run_changes_nothing(
    tmp_path: Path, sources: Sources
) -> None:
    given = parameters(sources, tmp_path / "code")
    done = jobs.find("source")(given)
    assert done["changed"] is True
    assert done["sources"]["omniinfer"]["commit"] == sources.omniinfer_commit
    assert done["sources"]["vllm"]["folder"] == str(tmp_path / "code/infer_engines/vllm")
    assert (tmp_path / "code/infer_engines/vllm/vllm/__init__.py").is_file()
    again = source_jobs.fetch(given)
    assert again["changed"] is False
    assert {one["action"] for one in again["sources"].values()} == {"unchanged"}


def test_one_source_is_enough_reason_to_act(tmp_path: Path, sources: Sources) -> None:
    given = parameters(sources, tmp_path / "code")
    source_jobs.fetch(given)
    given["vllm"]["ref"] = "main"
    done = source_jobs.fetch(given)
    assert done["changed"] is True and done["sources"]["omniinfer"]["action"] == "unchanged"
    assert done["sources"]["vllm"]["action"] == "moved"


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("vllm", "ref", "--upload-pack=touch /tmp/x"),
        ("vllm", "urls", ["ext::sh -c date"]),
        ("omniinfer", "urls", ["-c"]),
    ],
)
def test_hostile_values_are_refused_before_anything(
    tmp_path: Path, sources: Sources, name: str, key: str, value: object
) -> None:
    given = parameters(sources, tmp_path / "code")
    given[name][key] = value
    with pytest.raises(InputError):
        source_jobs.fetch(given)
    assert not (tmp_path / "code").exists()


def test_the_folder_is_absolute_and_may_begin_with_a_tilde(
    tmp_path: Path, sources: Sources, monkeypatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert source_jobs.folder_of({"dir": "~/code"}) == str(tmp_path / "code")
    with pytest.raises(InputError, match="must be an absolute path, found 'code'"):
        source_jobs.folder_of({"dir": "code"})


def test_building_without_sources_says_how_to_fetch_them(tmp_path: Path, sources: Sources) -> None:
    given = parameters(sources, tmp_path / "code")
    with pytest.raises(InputError, match="no such folder") as caught:
        source_jobs.build(given)
    assert "--only fetch" in str(caught.value)
    (tmp_path / "code").mkdir()
    with pytest.raises(InputError, match="source of omniinfer is not here"):
        source_jobs.build(given)


def test_two_runs_do_not_work_in_one_folder(tmp_path: Path, sources: Sources) -> None:
    given = parameters(sources, tmp_path / "code")
    inside, over = threading.Event(), threading.Event()

    def other() -> None:
        with source_jobs.alone(tmp_path / "code"):
            inside.set()
            over.wait(20)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert inside.wait(20)
        with pytest.raises(InputError, match="another fetch or build"):
            source_jobs.fetch(given)
    finally:
        over.set()
        thread.join()
    assert not (tmp_path / "code").exists()  # it was made for nothing
    assert source_jobs.fetch(given)["changed"] is True


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, sources: Sources) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be used"):
        source_jobs.fetch(parameters(sources, tmp_path / "file/code"))


def test_a_clone_with_changes_stops_the_fetch(tmp_path: Path, sources: Sources) -> None:
    given = parameters(sources, tmp_path / "code")
    source_jobs.fetch(given)
    (tmp_path / "code/omni/__init__.py").write_text("mine\n")
    with pytest.raises(InputError, match="M omni/__init__"):
        source_jobs.fetch(given)
    git(tmp_path / "code", "stash")
    assert source_jobs.fetch(given)["changed"] is False


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, sources: Sources) -> None:
    given = parameters(sources, tmp_path / "code")
    source_jobs.fetch(given)
    record = tmp_path / "code/build/omnikit-build.json"
    record.mkdir()  # stands in its place
    (record / "x").write_text("x")
    with pytest.raises(ActionError, match="could not be read or written") as caught:
        source_jobs.build({**given, "build": ["true"]})
    assert record.name in str(caught.value)
