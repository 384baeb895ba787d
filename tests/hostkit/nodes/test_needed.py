"""What differs between two start scripts, by name."""

from __future__ import annotations

import zipfile
from pathlib import Path

from hostkit.nodes import needed

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
