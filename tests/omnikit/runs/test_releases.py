"""Releases: kept whole, without secrets, and what comes back is what was deployed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from settings_file import write

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.prepare.deployment import Deployment, prepare
from omnikit.runs import releases

SINGLE = """
profile: {engine: cpu, model: tiny-qwen2}
hosts: {local: {address: 127.0.0.1, connection: local}}
topology: {colocated: [{hosts: [local]}]}
"""


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases in a folder of the test's own, not among a developer's."""
    monkeypatch.setattr(releases, "control_folder", lambda name: tmp_path / "control" / name)


def deployed(tmp_path: Path, **more: str) -> Deployment:
    assignments = [f"{key.replace('__', '.')}={value}" for key, value in more.items()]
    loaded = config.load(str(write(tmp_path, SINGLE)), assignments=assignments, environ={})
    return prepare(loaded, {}, {}, {})


def keep(deployment: Deployment, note: str = "") -> releases.Release:
    return kept(releases.Staged(deployment, {"s0": "start"}, {}, {}, note))


def kept(staged: releases.Staged) -> releases.Release:
    config = staged.deployment.config
    place = releases.folder(config.environment).parent / "staged"
    staged.write(place)
    releases.keep(config, place)
    return releases.all_of(config.environment)[-1]


def test_what_comes_back_is_what_was_deployed(tmp_path: Path) -> None:
    first = deployed(tmp_path, ports__api_base="9300", server__env__A="1")
    release = keep(first)
    now = deployed(tmp_path).config
    back = releases.restored(release, now)
    assert back.files == first.files
    assert back.plan == first.plan
    assert back.config.settings == first.config.settings


def test_numbers_go_on_and_the_oldest_go(tmp_path: Path) -> None:
    for _ in range(4):
        keep(deployed(tmp_path, deploy__keep_releases="3"))
    name = deployed(tmp_path).plan.environment
    assert [release.number for release in releases.all_of(name)] == [2, 3, 4]
    assert releases.find(name, None).number == 3
    assert releases.find(name, 2).number == 2
    with pytest.raises(InputError, match="no release 9, found: 2, 3, 4"):
        releases.find(name, 9)


def test_there_is_nothing_to_go_back_to_after_one(tmp_path: Path) -> None:
    keep(deployed(tmp_path))
    with pytest.raises(InputError, match="no earlier release"):
        releases.find(deployed(tmp_path).plan.environment, None)


def test_nobody_else_reads_a_release_and_no_secret_is_in_it(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "foreign" / "omni_infer_deployment.yml"
    text = path.read_text()
    assert "password:" in text
    brought = tmp_path / path.name
    brought.write_text(text)
    loaded = config.load(files=[str(brought)], environ={})
    secrets = [h.password for h in loaded.settings.hosts.values() if h.password]
    assert secrets
    made = keep(prepare(loaded, {}, {"kind": "omni-nginx"}, {}))
    for file in made.folder.iterdir():
        assert file.stat().st_mode & 0o077 == 0
        for secret in secrets:
            assert config.read_secret(secret, "x") not in file.read_text()
    back = releases.restored(made, loaded)
    assert [h.password for h in back.config.settings.hosts.values() if h.password] == secrets


def test_a_release_says_who_and_what(tmp_path: Path) -> None:
    image, source = {"repo:tag": "0123456789abcdef"}, {"revision": "abc", "dirty": True}
    made = kept(releases.Staged(deployed(tmp_path), {"s0": "restart"}, image, source))
    about = json.loads((made.folder / "about.json").read_text())
    assert "@" in about["owner"]
    shown = releases.as_text([made])
    for part in ("repo:tag (0123456789ab)", "abc (dirty)", "restart s0"):
        assert part in shown


DAMAGE = {
    "": "about.json: Expecting value",
    '{"time":': "about.json: Expecting value",
    "[]": "about.json: it is no object",
    '{"time": "x"}': "about.json: its 'owner' is missing, or not a text",
    '{"time": 1, "owner": "o", "note": ""}': "its 'time' is missing, or not a text",
    '{"time": "t", "owner": "o", "note": "", "images": {}, "source": null}': "its 'source' is",
    **{
        '{"time": "t", "owner": "o", "note": "", ' + words + "}": "a change in it is not a text"
        for words in (
            '"images": {"a": 1}, "source": {}, "changed": {}',
            '"images": {}, "source": {"revision": ["a"]}, "changed": {}',
            '"images": {}, "source": {}, "changed": {"s0": null}',
        )
    },
}


@pytest.mark.parametrize(("text", "said"), DAMAGE.items())
def test_one_that_is_damaged_is_left_out_and_named(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [keep(deployed(tmp_path)) for _ in range(3)]
    name = deployed(tmp_path).plan.environment
    (made[1].folder / "about.json").write_text(text)
    (made[1].folder.parent / "²").mkdir()  # no number, though a digit
    assert [release.number for release in releases.all_of(name)] == [1, 3]
    [fault] = releases.damaged(name)
    assert fault.startswith("release 2: ") and said in fault
    assert releases.find(name, None).number == 1
    assert f"left out: {fault}" in capsys.readouterr().err
    with pytest.raises(InputError, match="release 2 is damaged: "):
        releases.find(name, 2)


@pytest.mark.parametrize("file", ["about.json", "files.json", "{}.yaml"])
def test_what_a_cut_prune_left_is_no_release(tmp_path: Path, file: str) -> None:
    made = [keep(deployed(tmp_path)) for _ in range(2)]
    name = deployed(tmp_path).plan.environment
    (made[0].folder / file.format(name)).unlink()
    assert [release.number for release in releases.all_of(name)] == [2]
    assert releases.damaged(name)[0].startswith("release 1: ")
    assert "\n1 " not in releases.as_text(releases.all_of(name))


def test_a_damaged_present_release_keeps_its_number_and_the_one_before_is_gone_back_to(
    tmp_path: Path,
) -> None:
    made = [keep(deployed(tmp_path)) for _ in range(2)]
    name = deployed(tmp_path).plan.environment
    (made[1].folder / "about.json").unlink()
    assert releases.find(name, None).number == 1
    assert keep(deployed(tmp_path)).number == 3


def test_a_prune_takes_the_number_first_and_finishes_what_an_earlier_one_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(path: Path, **_: object) -> None:
        if path.name.endswith(".old"):
            raise KeyboardInterrupt

    name = deployed(tmp_path).plan.environment
    keep(deployed(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(releases.shutil, "rmtree", cut)
        with pytest.raises(KeyboardInterrupt):
            keep(deployed(tmp_path, deploy__keep_releases="1"))
    assert [release.number for release in releases.all_of(name)] == [2]
    assert releases.damaged(name) == []
    keep(deployed(tmp_path, deploy__keep_releases="1"))
    assert [path.name for path in releases.folder(name).iterdir()] == ["3"]


def test_files_that_cannot_be_read_are_no_traceback(tmp_path: Path) -> None:
    made = keep(deployed(tmp_path))
    (made.folder / "files.json").write_text('{"files": ')
    with pytest.raises(InputError, match="release 1 is damaged") as raised:
        releases.restored(made, deployed(tmp_path).config)
    assert raised.value.where == str(made.folder / "files.json")


def test_the_same_deployment_is_no_second_release(tmp_path: Path) -> None:
    first, other = deployed(tmp_path), deployed(tmp_path, server__env__A="1")
    keep(first)
    assert releases.Staged(first, {"s0": "start"}, {}, {}).is_present()
    assert not releases.Staged(first, {}, {}, {"revision": "abc"}).is_present()
    assert releases.deployed_last(first) and not releases.deployed_last(other)
    keep(other)
    assert not releases.deployed_last(first)
    name = first.plan.environment
    (releases.folder(name) / "2" / "about.json").unlink()  # then it is not known what is present
    assert not releases.deployed_last(first)
