"""scripts/import_config.py as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import config
import import_config
import plan
import pytest
from foreign_files import ALL, DEPLOYMENT, FOUR_P, SINGLE_NODE, TWO_P, edited

from omnikit.config import layers


def test_an_environment_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.yaml"
    words = [str(TWO_P), "--out", str(out)]
    assert import_config.main(words) == 0
    said = capsys.readouterr()
    assert f"{out}: created" in said.err and said.out == ""
    assert "prefill instances: 2, decode hosts: 2, proxy on p0" in said.err
    assert "ansible_ssh_common_args: StrictHostKeyChecking=no is not used" in said.err
    before = out.stat()
    assert import_config.main(words) == 0
    assert f"{out}: unchanged" in capsys.readouterr().err
    assert out.stat().st_mtime_ns == before.st_mtime_ns
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
    assert plan.main(["--environment", str(out)]) == 0
    assert "192.0.2.13:8100" in capsys.readouterr().out


def test_without_a_place_it_goes_where_a_users_environments_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not among the shipped ones; and the next commands can be typed as they are said."""
    monkeypatch.setenv(layers.SITE_FOLDER, str(tmp_path))
    assert import_config.main([str(DEPLOYMENT)]) == 0
    assert (tmp_path / "environments" / "omni_infer_deployment.local.yaml").is_file()
    assert "next: invoke plan --environment omni_infer_deployment;" in capsys.readouterr().err
    for name in ("omni_infer_deployment", "omni_infer_deployment.local"):
        assert plan.main(["--environment", name]) == 0
        assert "environment omni_infer_deployment: 8 hosts" in capsys.readouterr().out


def test_an_inventory_is_imported_for_the_release_that_it_is_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prefill and decode on halves of one host: v0.4.1 cannot, the roles of 2026 can."""
    out, source = tmp_path / "mine.yaml", edited(tmp_path, SINGLE_NODE, ("127.0.0.1", "192.0.2.1"))
    assert import_config.main([str(source), "--out", str(out)]) == 2
    assert "engine.decode_devices" in capsys.readouterr().err
    assert import_config.main([str(source), "--out", str(out), "--release", "2026-09"]) == 0
    profile = "{engine: ascend, omni_version: 2026-09, model: openpangu-2.0-flash}"
    assert f"profile: {profile}" in out.read_text()
    assert plan.main(["--environment", str(out)]) == 0
    words = ["--release", "2026-09", "--model", "any", "--dry-run"]
    assert import_config.main([str(source), *words]) == 0
    assert "model: any}" in capsys.readouterr().out
    for option in ("--release", "--model"):
        assert import_config.main([str(source), option, "no-such", "--dry-run"]) == 2
        assert f"{option}: there is no" in capsys.readouterr().err


def test_a_different_file_is_not_replaced_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.yaml"
    out.write_text("mine\n")
    words = [str(TWO_P), "--out", str(out)]
    assert import_config.main(words) == 2
    assert "differs from what would be written" in capsys.readouterr().err
    assert out.read_text() == "mine\n"
    assert import_config.main([*words, "--force"]) == 0
    assert f"{out}: replaced" in capsys.readouterr().err


def test_dry_run_prints_the_file_and_writes_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.yaml"
    assert import_config.main([str(DEPLOYMENT), "--out", str(out), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert not out.exists()
    assert import_config.main([str(DEPLOYMENT), "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == printed


def test_json_says_what_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.yaml"
    assert import_config.main([str(FOUR_P), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["state"], said["file"], said["kind"]) == ("created", str(out), "Ansible inventory")
    assert (said["prefill_instances"], said["decode_hosts"], said["proxy"]) == (4, 4, "c0")
    [left] = said["passwords_left_out"]
    assert left["hosts"] == ["p0", "p1", "p2", "p3", "d0", "d1", "d2", "d3", "c0"]
    assert left["origin"].endswith("4P1D.yml:8")


def test_mistakes_end_with_2_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.yaml"
    path = edited(tmp_path, DEPLOYMENT, ("192.0.2.18", "127.0.0.1"), ("192.0.2.18", "127.0.0.1"))
    assert import_config.main([str(path), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}:38: ") and "loopback" in said
    assert import_config.main(["/no/such.yml", "--out", str(out)]) == 2
    assert import_config.main(["configs/environments/2p1d.yaml", "--out", str(out)]) == 2
    assert import_config.main([str(TWO_P), "--out", str(tmp_path / "no" / "such.yaml")]) == 2
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("source", ALL, ids=lambda path: path.stem)
def test_no_output_shows_a_password(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    direct = ["--config", str(source)]
    for main, words in (
        (import_config.main, [str(source), "--out", str(tmp_path / "a.yaml")]),
        (import_config.main, [str(source), "--dry-run", "--json"]),
        (config.main, direct),
        (config.main, [*direct, "--json"]),
        (config.main, [*direct, "--origin", "--changed"]),
        (config.main, [*direct, "--origin", "--json"]),
        (plan.main, [*direct, "--json"]),
        (plan.main, [*direct, "--commands", "--files"]),
    ):
        assert main(words) == 0
        said = capsys.readouterr()
        assert "not-a-real" not in said.out + said.err
        assert said.out or said.err
