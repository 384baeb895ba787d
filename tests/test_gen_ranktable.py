"""The whole script against the executable stand-ins of hccn_tool and ip on PATH."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import gen_ranktable
import pytest
from ranktable_cases import FACTS, device_ips

from hostkit.ranks import ranktable
from hostkit.ranks.check import check_global

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent
SCRIPT = TESTS.parent / "scripts" / "gen_ranktable.py"
SIXTEEN = ",".join(map(str, range(16)))


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with NPUs whose host name resolves to 127.0.1.1, as Debian's installer leaves it."""
    monkeypatch.setenv("PATH", f"{TESTS / 'fake_npu'}:{os.environ['PATH']}")
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "127.0.1.1")


def gen(folder: Path, *words: str) -> int:
    conf = ["--hccn-conf", str(folder / "hccn.conf")]
    return gen_ranktable.main([*words, "--save-dir", str(folder / "out"), *conf])


def written(folder: Path) -> dict[str, Any]:
    out = folder / "out"
    return (
        {path.name: json.loads(path.read_text()) for path in out.iterdir()} if out.exists() else {}
    )


def test_gen_writes_local_host_and_global_tables(tmp_path: Path, capsys: Any):
    words = ["--mode", "gen", "--api-server", "--prefill-server-list", "0,1,2,3", "4,5,6,7"]
    assert gen(tmp_path, *words) == 0
    ips = device_ips(0)
    assert written(tmp_path) == {
        "local_ranktable_10.0.0.11_0123.json": ranktable.local_table("10.0.0.11", range(4), ips),
        "local_ranktable_10.0.0.11_4567.json": ranktable.local_table("10.0.0.11", range(4, 8), ips),
        "local_ranktable_10.0.0.11_host.json": ranktable.host_table("10.0.0.11"),
        "global_ranktable_10.0.0.11.json": ranktable.generated_table(
            "10.0.0.11",
            api_server=True,
            prefill=[range(4), range(4, 8)],
            decode=[],
            device_ips=ips,
        ),
    }
    assert capsys.readouterr().out.count(": created\n") == 4


def test_gen_is_the_default_mode_and_ip_is_host_ip(tmp_path: Path):
    assert gen(tmp_path, "--decode-server-list", "0", "--ip", "10.0.0.50") == 0
    assert gen(tmp_path, "--decode-server-list", "0", "--host-ip", "10.0.0.51") == 0
    assert {"local_ranktable_10.0.0.50_0.json", "local_ranktable_10.0.0.51_0.json"} <= set(
        written(tmp_path)
    )


def test_a_second_run_changes_nothing(tmp_path: Path, capsys: Any):
    words = ["--prefill-server-list", "0,1"]
    assert gen(tmp_path, *words) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    capsys.readouterr()
    assert gen(tmp_path, *words) == 0
    assert capsys.readouterr().out.count(": unchanged\n") == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_a_changed_device_address_rewrites_the_table(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    assert gen(tmp_path, "--prefill-server-list", "0,1") == 0
    monkeypatch.setenv("FAKE_HCCN_CHANGED", "1=10.1.0.250")
    assert gen(tmp_path, "--prefill-server-list", "0,1") == 0
    assert capsys.readouterr().out.count(": rewritten\n") == 2
    table = written(tmp_path)["local_ranktable_10.0.0.11_01.json"]
    assert table["server_list"][0]["device"][1]["device_ip"] == "10.1.0.250"


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: Any):
    assert gen(tmp_path, "--prefill-server-list", "0,1", "--dry-run") == 0
    assert capsys.readouterr().out.count("would be created") == 2
    assert written(tmp_path) == {}


def test_json_is_the_result_for_programs(tmp_path: Path, capsys: Any):
    assert gen(tmp_path, "--decode-server-list", "3", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["host_ip"] == "10.0.0.11" and result["dry_run"] is False
    assert result["devices"] == {"3": {"ip": "10.1.0.103", "source": "hccn_tool"}}
    assert [Path(file["path"]).name for file in result["files"]] == [
        "local_ranktable_10.0.0.11_3.json",
        "global_ranktable_10.0.0.11.json",
    ]
    assert {file["result"] for file in result["files"]} == {"created"}


def test_an_empty_answer_uses_hccn_conf_and_says_so(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "hccn.conf").write_bytes((FACTS / "hccn.conf").read_bytes())
    monkeypatch.setenv("FAKE_HCCN", "empty")
    assert gen(tmp_path, "--prefill-server-list", "0,1") == 0
    assert "device 0: hccn_tool gave an empty answer" in capsys.readouterr().err
    assert len(written(tmp_path)) == 2


def test_a_hanging_tool_fails_with_host_device_and_command(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_HCCN", "hang")
    assert gen(tmp_path, "--prefill-server-list", "0,1", "--timeout", "0.5") == 1
    said = capsys.readouterr().err
    assert "host 10.0.0.11: Device 0: no answer within 0.5 s from: hccn_tool -i 0 -ip -g" in said
    assert written(tmp_path) == {}


def test_a_missing_device_fails_and_nothing_is_written(tmp_path: Path, capsys: Any):
    assert gen(tmp_path, "--prefill-server-list", "15,16") == 1
    assert "host 10.0.0.11: Device 16: hccn_tool says: Cmd exec" in capsys.readouterr().err
    assert written(tmp_path) == {}


@pytest.mark.parametrize(
    ("conf", "part"),
    [
        ("address_0=10.1.0.1\naddress_1=10.1.0.1\n", "have the same address 10.1.0.1"),
        ("address_0=127.0.0.1\naddress_1=10.1.0.1\n", "device 0: its address is 127.0.0.1, a loop"),
        (
            "address_0=10.1.0.1\naddress_1=10.1.0\n",
            "device 1: its address is '10.1.0', which is no",
        ),
        ("address_0=10.1.0.1\naddress_1=\n", "Device 1 has no address"),
        ("address_0=10.1.0.1\n", "Device 1 has no address"),
    ],
)
def test_bad_device_addresses_are_refused_before_writing(
    tmp_path: Path, capsys: Any, conf: str, part: str
):
    (tmp_path / "hccn.conf").write_text(conf)
    words = ["--prefill-server-list", "0,1", "--devices-source", "hccn.conf"]
    assert gen(tmp_path, *words) == 2
    said = capsys.readouterr().err
    assert part in said and "10.0.0.11" in said and "hccn.conf" in said
    assert said.count(part) == 1
    assert written(tmp_path) == {}


@pytest.mark.parametrize(
    "words",
    [
        ["--prefill-server-lists", "0"],
        ["--prefill-server-list"],
        ["--decode-server-list", "0", "--save-dir"],
        ["--mode", "generate"],
        ["--mode"],
        ["--timeout", "0", "--decode-server-list", "0"],
    ],
)
def test_unknown_options_and_options_without_value_exit_2(tmp_path: Path, words: list[str]):
    with pytest.raises(SystemExit) as caught:
        gen_ranktable.main(["--hccn-conf", str(tmp_path / "none"), *words])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "nothing to make"),
        (["--prefill-server-list", "0,,1"], "'0,,1'"),
        (["--prefill-server-list", "0,1,"], "expected device ids with commas"),
        (["--prefill-server-list", "0 1"], "expected device ids with commas"),
        (["--prefill-server-list", "0," + "9" * 5000], "expected device ids with commas"),
        (["--prefill-server-list", "a"], "--prefill-server-list"),
        (["--prefill-server-list", "0,0"], "Device 0 is given twice"),
        (["--prefill-server-list", "0", "--decode-server-list", "0"], "Device 0 is given twice"),
        (["--decode-server-list", "0,1", "2"], "The decode instances have 2, 1 devices"),
        (["--prefill-server-list", "0,1", "2"], "The prefill instances have 2, 1 devices"),
        (["--prefill-server-list", "1,12", "11,2"], "both be local_ranktable_10.0.0.11_112.json"),
        (["--decode-server-list", "0", "--ip", "127.0.1.1"], "loopback"),
        (["--decode-server-list", "0", "--ip", ""], "blank"),
    ],
)
def test_wrong_input_exits_2_and_says_what(
    tmp_path: Path, capsys: Any, words: list[str], part: str
):
    assert gen(tmp_path, *words) == 2
    assert part in capsys.readouterr().err
    assert written(tmp_path) == {}


def test_prefill_and_decode_may_differ_in_size(tmp_path: Path):
    assert gen(tmp_path, "--prefill-server-list", "0,1", "--decode-server-list", "2") == 0


@pytest.mark.parametrize("place", ["file/below", "/proc/omnikit"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: Any, place: str):
    (tmp_path / "file").write_text("")
    words = ["--decode-server-list", "0", "--save-dir", str(tmp_path / place)]
    assert gen_ranktable.main(words) == 2
    assert str(tmp_path / place) in capsys.readouterr().err


def test_options_of_other_modes_are_noted(tmp_path: Path, capsys: Any):
    words = ["--decode-server-list", "0", "--local-ranktable-list", "x.json"]
    assert gen(tmp_path, *words) == 0
    assert "--local-ranktable-list means nothing to --mode gen" in capsys.readouterr().err


def four_hosts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2P1D by hand: --mode gen on each of four hosts, into one folder."""
    for number, role in enumerate(["prefill", "prefill", "decode", "decode"]):
        monkeypatch.setenv("FAKE_HCCN_HOST", str(number))
        scheduler = ["--api-server"] if number == 0 else []
        address = f"10.0.0.1{number}"
        words = [f"--{role}-server-list", SIXTEEN, "--ip", address, *scheduler]
        assert gen(folder, *words) == 0


def local_file(folder: Path, number: int) -> str:
    return str(folder / "out" / ranktable.local_name(f"10.0.0.1{number}", range(16)))


def test_two_p_one_d_by_hand_equals_the_whole_environment_in_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from ranktable_cases import two_p_one_d, two_p_one_d_ips

    from omnikit.prepare import ranktables

    four_hosts(tmp_path, monkeypatch)
    files = [local_file(tmp_path, number) for number in range(4)]
    out = tmp_path / "out"
    assert gen(tmp_path, "--mode", "merge-local", "--local-ranktable-list", *files[2:]) == 0
    words = ["--mode", "merge-all", "--prefill-server-list", *files[:2], "--decode-server-list"]
    host = str(out / "local_ranktable_10.0.0.10_host.json")
    decode = str(out / "local_ranktable_merge.json")
    assert gen(tmp_path, *words, decode, "--api-server-list", host) == 0
    in_one_pass = ranktables.planned_files(
        ranktables.planned(two_p_one_d(), two_p_one_d_ips()), "global"
    )
    assert (out / "global_ranktable_merge.json").read_text() == in_one_pass["d1"][
        "global/global_ranktable_merge.json"
    ]
    assert Path(decode).read_text() == in_one_pass["d1"]["local_ranktable_merge.json"]
    assert Path(files[3]).read_text() == in_one_pass["d1"][Path(files[3]).name]
    table = written(tmp_path)["global_ranktable_merge.json"]
    assert check_global(table, "g", two_p_one_d()) == []


def test_merge_joins_the_hosts_own_global_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    four_hosts(tmp_path, monkeypatch)
    files = [str(tmp_path / "out" / f"global_ranktable_10.0.0.1{n}.json") for n in range(4)]
    assert gen(tmp_path, "--mode", "merge", "--global-ranktable-list", *files) == 0
    groups = written(tmp_path)["global_ranktable_merge.json"]["server_group_list"]
    hosts = [[server["server_ip"] for server in group["server_list"]] for group in groups]
    assert hosts == [["10.0.0.10"], ["10.0.0.10", "10.0.0.11"], ["10.0.0.12", "10.0.0.13"]]
    assert gen(tmp_path, "--mode", "merge", "--global-ranktable-list", *files[1:]) == 2
    assert "0 of these tables have a group 0 (scheduler)" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["merge-local", "merge"])
def test_merging_needs_two_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, mode: str
):
    four_hosts(tmp_path, monkeypatch)
    option = "--local-ranktable-list" if mode == "merge-local" else "--global-ranktable-list"
    assert gen(tmp_path, "--mode", mode, option, local_file(tmp_path, 0)) == 2
    assert f"{option}: 1 file" in capsys.readouterr().err


def test_merging_refuses_what_does_not_fit_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    four_hosts(tmp_path, monkeypatch)
    before = written(tmp_path)
    files = [local_file(tmp_path, number) for number in range(4)]
    words = ["--mode", "merge-local", "--local-ranktable-list"]
    assert gen(tmp_path, *words, files[0], files[0]) == 2
    assert "host 10.0.0.10 is listed 2 times" in capsys.readouterr().err
    assert gen(tmp_path, *words, files[0], str(tmp_path / "none.json")) == 2
    assert f"{tmp_path / 'none.json'}: cannot read it" in capsys.readouterr().err
    words = ["--mode", "merge-all", "--prefill-server-list", files[0], "--decode-server-list"]
    assert gen(tmp_path, *words, files[0]) == 2
    assert "device 0 is listed 2 times" in capsys.readouterr().err
    assert gen(tmp_path, *words[:4]) == 2
    assert "--decode-server-list: 0 files" in capsys.readouterr().err
    table = json.loads(Path(files[1]).read_text())
    table["server_list"][0]["device"][3]["device_ip"] = ""
    Path(files[1]).write_text(json.dumps(table))
    before[Path(files[1]).name] = table
    assert gen(tmp_path, *words, files[1]) == 2
    assert f"{files[1]}: host 10.0.0.11, device 3: its address is blank" in capsys.readouterr().err
    assert written(tmp_path) == before


def test_two_hosts_with_one_device_address_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    four_hosts(tmp_path, monkeypatch)
    monkeypatch.setenv("FAKE_HCCN_CHANGED", "4=10.1.0.109")
    assert gen(tmp_path, "--decode-server-list", SIXTEEN, "--ip", "10.0.0.13") == 0
    words = ["--mode", "merge-all", "--prefill-server-list", local_file(tmp_path, 0)]
    assert gen(tmp_path, *words, "--decode-server-list", local_file(tmp_path, 3)) == 2
    assert (
        "device 9 of host 10.0.0.10 and device 4 of host 10.0.0.13 have the same address "
        "10.1.0.109" in capsys.readouterr().err
    )


def test_it_needs_nothing_but_python_and_its_own_folder(tmp_path: Path):
    """As on a host: another working folder, no packages (-S), no environment but PATH."""
    link = tmp_path / "gen_ranktable.py"
    link.symlink_to(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-S", str(link), "--prefill-server-list", SIXTEEN, "--save-dir", "out"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.count(": created\n")) == (0, 2), done.stderr
    table = written(tmp_path)[f"local_ranktable_10.0.0.11_{SIXTEEN.replace(',', '')}.json"]
    assert len(table["server_list"][0]["device"]) == 16
