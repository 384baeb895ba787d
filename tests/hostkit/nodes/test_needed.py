"""What differs between two start scripts, by name."""

from __future__ import annotations

import os
import socket
import zipfile
from pathlib import Path
from typing import Any

from hostkit.base import records
from hostkit.nodes import needed, proxy_run

SCRIPT = """main() {
  export A=1
  export TOKEN=secret
  exec vllm serve /m \\
    --max-num-seqs 16 \\
    --enforce-eager \\
    --kv-transfer-config '{"kv_rank": 0, "kv_parallel_size": 3}' \\
    "${own[@]}"
}
"""


def test_variables_flags_and_keys_are_named_and_no_value_is() -> None:
    new = SCRIPT.replace("A=1", "A=2").replace("secret", "other").replace(" 16", " 32")
    new = new.replace('size": 3', 'size": 4').replace("    --enforce-eager \\\n", "")
    found = needed.of_script(SCRIPT, new)
    assert sorted(found) == [
        "--enforce-eager",
        "--kv-transfer-config (kv_parallel_size)",
        "--max-num-seqs",
        "A",
        "TOKEN",
    ]


def test_equal_scripts_differ_in_nothing() -> None:
    assert needed.of_script(SCRIPT, SCRIPT) == []


def test_files_of_the_node_and_its_rank_tables_count_and_no_others(tmp_path: Path) -> None:
    old = {"p0/start.sh": SCRIPT, "p0/extra.json": "{}", "p1/start.sh": "x", "ranktable/a": "1"}
    new = {**old, "p0/extra.json": "{1}", "p1/start.sh": "y", "ranktable/b": "2"}
    for name, text in old.items():
        path = tmp_path / "work" / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with zipfile.ZipFile(tmp_path / "in.pyz", "w") as archive:
        for name, text in new.items():
            archive.writestr(f"bundle/{name}", text)
    found = needed.of_node(tmp_path / "in.pyz", tmp_path / "work", "p0")
    assert found == ["p0/extra.json", "ranktable/b"]
    assert needed.of_node(tmp_path / "none", tmp_path / "work", "p0") == []


def test_many_names_are_cut() -> None:
    assert needed.shown(list("abcdef")) == "a, b, c, d and 2 more"


def test_what_a_proxy_that_serves_cannot_take_over_is_named(tmp_path: Path) -> None:
    place = {"ports": [["127.0.0.1", 9]], "temp_dir": "/run/c0", "log_dir": "/logs/c0"}
    node = {"name": "c0", "role": "proxy", "container": None, **place}
    host: dict[str, Any] = {"work_dir": str(tmp_path), "nodes": [node], "containers": {}}
    assert needed.fixed(host) == {}  # it does not run: nothing can be lost
    record: dict[str, Any] = {"node": "c0", "role": "proxy", "phase": "ready", "servers": []}
    record.update(supervisor=records.identity(os.getpid()), place=place, hands_over=True)
    for change, why in [
        ({}, None),
        ({"phase": "failed"}, "it does not run as it should"),
        ({"hands_over": False}, "Linux 5.6"),
        ({"place": {**place, "ports": [["127.0.0.1", 8]]}}, "its address or port would change"),
        ({"place": {**place, "log_dir": "/other"}}, "its logs would change"),
        ({"container": {"name": "omnikit_c0"}}, "its container would be made anew"),
    ]:
        records.write_record(tmp_path / "state", {**record, **change})
        found = needed.fixed(host)
        assert (why or "") in found.get("c0", "") and bool(found) == bool(why), change
    del record["hands_over"]
    records.write_record(tmp_path / "state", record)
    assert "earlier version" in needed.fixed(host)["c0"]


def test_listening_sockets_are_taken_from_a_process() -> None:
    assert proxy_run.hands_over()  # on this kernel
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)):
        port = one.getsockname()[1]
        [copy] = proxy_run.listening(os.getpid(), [["127.0.0.1", port]])
    with socket.socket(fileno=copy) as mine, socket.create_connection(("127.0.0.1", port)):
        assert mine.accept()[0].getsockname()[1] == port  # it listens on, though that was closed
