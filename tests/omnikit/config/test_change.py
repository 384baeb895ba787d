"""Hosts and instances written into the file that names them, or the lines to write by hand."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hostkit.base.errors import InputError
from omnikit.config import change, layers
from omnikit.config.change import Place

SITE = """\
# our site
based_on: 2p1d
hosts:
  p0: {address: 10.0.0.11}  # rack 1
  p1: {address: 10.0.0.12}
  d0: {address: 10.0.0.13}
  d1: {address: 10.0.0.14}
"""
P2 = {"p2": {"address": "10.0.0.15", "user": "root"}}


def site(folder: Path, text: str = SITE, name: str = "prod.yaml") -> Place:
    (folder / name).write_text(text)
    return Place(str(folder / name))


def added(place: Place, hosts: Any = P2, role: str = "prefill") -> change.Change:
    config = place.load()
    entries = [*change.instances(config, role), {"hosts": list(hosts)}]
    return change.make(place, config, hosts, {role: entries})


def test_the_list_of_the_file_below_is_written_out_and_every_line_stays(tmp_path: Path) -> None:
    place = site(tmp_path)
    made = added(place)
    assert place.load().settings.topology.prefill[-1].hosts == ["p1"]  # nothing is written yet
    assert [line for line in made.diff().splitlines() if line[:1] == "-"] == [
        f"--- {tmp_path}/prod.yaml"
    ]
    assert made.write() == [f"{tmp_path}/prod.yaml"]
    text = (tmp_path / "prod.yaml").read_text()
    assert "# rack 1" in text and "p2: {address: 10.0.0.15, user: root}" in text
    settings = place.load().settings
    assert [entry.hosts for entry in settings.topology.prefill] == [["p0"], ["p1"], ["p2"]]
    assert settings.topology.decode[0].hosts == ["d0", "d1"]
    again = change.make(
        place, place.load(), P2, {"prefill": change.instances(place.load(), "prefill")}
    )
    assert again.texts == {} and again.diff() == ""


def test_a_shipped_environment_stays_and_a_file_of_its_name_is_made_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIKIT_SITE", str(tmp_path))
    place = Place("2p1d")
    added(place).write()
    own = tmp_path / "environments" / "2p1d.local.yaml"
    assert own.read_text().splitlines()[1] == "based_on: 2p1d"
    assert layers.environment_file("2p1d", "") == own
    config = place.load()
    assert config.environment == "2p1d" and len(config.settings.topology.prefill) == 3
    entries = change.instances(config, "prefill")
    change.make(place, config, {}, {"prefill": [{**entries[0], "out": True}, *entries[1:]]}).write()
    assert [one.out for one in place.load().settings.topology.prefill] == [True, False, False]
    assert (
        subprocess.run(
            ["git", "-C", str(layers.PROJECT), "diff", "--quiet", "configs/environments"]
        ).returncode
        == 0
    )


def test_rights_and_links_stay_and_what_somebody_else_wrote_is_not_lost(tmp_path: Path) -> None:
    place = site(tmp_path)
    (tmp_path / "prod.yaml").rename(tmp_path / "real.yaml")
    (tmp_path / "prod.yaml").symlink_to("real.yaml")
    (tmp_path / "real.yaml").chmod(0o640)
    made = added(place)
    made.write()
    assert (tmp_path / "prod.yaml").is_symlink()
    assert (tmp_path / "real.yaml").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prod.yaml", "real.yaml"]
    with pytest.raises(InputError, match="somebody else changed this file"):
        made.write()


def test_a_list_of_a_site_file_is_changed_there(tmp_path: Path) -> None:
    extra = tmp_path / "more.yaml"
    extra.write_text("topology:\n  prefill: [{hosts: [p0]}, {hosts: [p1]}]\n")
    place = Place(site(tmp_path).environment, [str(extra)])
    made = added(place)
    assert list(made.texts) == [extra]
    made.write()
    assert place.load().settings.topology.prefill[2].hosts == ["p2"]


def test_settings_for_one_run_are_no_file(tmp_path: Path) -> None:
    own = site(tmp_path).environment
    place = Place(own, (), ['topology.prefill=[{"hosts": ["p0"]}]'])
    with pytest.raises(InputError, match="set for this run only"):
        added(place)


def test_what_cannot_be_written_is_said_as_lines(tmp_path: Path) -> None:
    text = SITE.replace("hosts:", "topology:\nhosts:")
    with pytest.raises(InputError) as error:
        place = site(
            tmp_path,
            text.replace("topology:\n", "topology: {prefill: [{hosts: [p0], out: false}]}\n"),
        )
        config = place.load()
        change.make(place, config, {}, {"prefill": [{"hosts": ["p0"], "devices": "0-7"}]})
    assert "cannot be changed safely" in str(error.value)
    assert "prefill: [{hosts: [p0], devices: 0-7}]" in str(error.value)
    assert (tmp_path / "prod.yaml").read_text().count("out: false") == 1


def test_an_inventory_is_left_alone_and_its_line_is_said(tmp_path: Path) -> None:
    found = layers.PROJECT / "tests/foreign/omni_infer_inventory_used_for_2P1D.yml"
    shutil.copy(found, tmp_path / "inventory.yml")
    place = Place(None, [str(tmp_path / "inventory.yml")])
    config = place.load()
    with pytest.raises(InputError) as error:
        added(place)
    said = str(error.value)
    assert "file of another tool" in said and "p2:" in said
    assert 'ansible_host: "10.0.0.15"' in said and "kv_rank" in said
    entries = change.instances(config, "prefill")
    with pytest.raises(InputError, match="take out, at line"):
        change.make(place, config, {}, {"prefill": [{**entries[0], "out": True}, *entries[1:]]})
