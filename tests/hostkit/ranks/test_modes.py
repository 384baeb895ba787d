"""Parts of the modes that tests/test_gen_ranktable.py does not reach."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from ranktable_cases import device_ips

from hostkit.base.errors import InputError
from hostkit.ranks import ranktable
from hostkit.ranks.modes import Made, make

OPTIONS: dict[str, Any] = {
    "prefill_server_list": [],
    "decode_server_list": [],
    "global_ranktable_list": [],
    "local_ranktable_list": [],
    "api_server_list": [],
    "api_server": False,
    "host_ip": None,
}


def options(mode: str, **given: Any) -> argparse.Namespace:
    return argparse.Namespace(**{**OPTIONS, "mode": mode, **given})


def saved(folder: Path, table: Any) -> str:
    path = folder / f"{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(table))
    return str(path)


def test_texts_are_those_of_the_tables():
    table = ranktable.host_table("10.0.0.1")
    assert Made({"a.json": table}).texts() == {"a.json": ranktable.dumps(table)}


def test_merge_all_keeps_the_ranks_of_a_merged_table(tmp_path: Path):
    locals_ = [ranktable.local_table(f"10.0.0.1{n}", [0, 1], device_ips(n)) for n in range(3)]
    merged = ranktable.merge_local(locals_[:2])
    made = make(
        options(
            "merge-all",
            prefill_server_list=[saved(tmp_path, merged)],
            decode_server_list=[saved(tmp_path, locals_[2])],
        )
    )
    groups = made.tables["global_ranktable_merge.json"]["server_group_list"]
    ranks = [[d["rank_id"] for s in g["server_list"] for d in s["device"]] for g in groups]
    assert ranks == [["0", "1", "2", "3"], ["0", "1"]]
    assert made.notes == []


def test_an_api_server_table_that_is_none_is_refused(tmp_path: Path):
    local = saved(tmp_path, ranktable.local_table("10.0.0.10", [0], device_ips(0)))
    other = saved(tmp_path, ranktable.local_table("10.0.0.11", [0], device_ips(1)))
    bad = ranktable.host_table("127.0.1.1")
    with pytest.raises(InputError, match="loopback"):
        make(
            options(
                "merge-all",
                prefill_server_list=[local],
                decode_server_list=[other],
                api_server_list=[saved(tmp_path, bad)],
            )
        )


def test_a_host_table_is_no_instance(tmp_path: Path):
    paths = [saved(tmp_path, ranktable.host_table(f"10.0.0.1{n}")) for n in range(2)]
    with pytest.raises(InputError, match=r"host 10\.0\.0\.10 has no device list"):
        make(options("merge-local", local_ranktable_list=paths))
