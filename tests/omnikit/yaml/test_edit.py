"""Changes of YAML text: only what is asked for changes, and every form of writing takes it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from omnikit.yaml import edit

BLOCK = """\
# a site
hosts:  # all of them
  p0: {address: 10.0.0.1}  # the first

  # the next
  d0:
    address: 10.0.0.2
topology:
  prefill:
    - hosts: [p0]  # here
      devices: 0-7
  # all decode
  decode: [{hosts: [d0]}]
"""


def read(text: str) -> Any:
    return yaml.safe_load(text)


def kept(old: str, new: str) -> None:
    """Every line that was there is there still, in this order."""
    left = iter(new.splitlines())
    assert all(any(line == one for one in left) for line in old.splitlines())


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n# the end\n"])
def test_a_key_and_an_item_are_added_and_every_line_stays(newline: str, end: str) -> None:
    old = (BLOCK.rstrip("\n") + end).replace("\n", newline)
    new = edit.put(old, ("hosts", "p1"), {"address": "10.0.0.3", "user": "root"})
    new = edit.append(new, ("topology", "prefill"), {"hosts": ["p1"]})
    kept(old, new)
    assert ("\r" in new) == (newline == "\r\n") and "\n" not in new.replace("\r\n", "") * (
        "\r" in new
    )
    data = read(new)
    assert data["hosts"]["p1"] == {"address": "10.0.0.3", "user": "root"}
    assert data["topology"]["prefill"] == [{"hosts": ["p0"], "devices": "0-7"}, {"hosts": ["p1"]}]
    flow = edit.append(new, ("topology", "decode"), {"hosts": ["d1"]})
    assert "decode: [{hosts: [d0]}, {hosts: [d1]}]" in flow


def test_what_is_missing_above_a_key_is_made() -> None:
    new = edit.put(
        "based_on: 2p1d\n", ("topology", "prefill"), [{"hosts": ["a"]}, {"hosts": ["b"]}]
    )
    assert new == "based_on: 2p1d\ntopology:\n  prefill:\n  - {hosts: [a]}\n  - {hosts: [b]}\n" or (
        read(new)["topology"] == {"prefill": [{"hosts": ["a"]}, {"hosts": ["b"]}]}
    )
    inside = edit.put("{a: {b: 1}}", ("a", "c", "d"), 2)
    assert inside == "{a: {b: 1, c: {d: 2}}}"
    assert edit.put("{a: {}}", ("a", "c"), "on") == "{a: {c: 'on'}}"


def test_a_mark_comes_and_goes_in_both_forms() -> None:
    out = edit.put(BLOCK, ("topology", "prefill", 0, "out"), True)
    assert "      devices: 0-7\n      out: true\n" in out
    assert edit.remove(out, ("topology", "prefill", 0, "out")) == BLOCK
    out = edit.put(BLOCK, ("topology", "decode", 0, "out"), True)
    assert "decode: [{hosts: [d0], out: true}]" in out
    assert edit.remove(out, ("topology", "decode", 0, "out")) == BLOCK
    first = edit.remove("a: [{out: true, hosts: [x]}]", ("a", 0, "out"))
    assert first == "a: [{hosts: [x]}]"


@pytest.mark.parametrize(
    "text", ["h: [a, b, c]", "h:\n- a  # one\n- b\n- c\n", "h: [\n  a, # one\n  b,\n  c\n]\n"]
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_item_is_taken_out(text: str, at: int) -> None:
    left = ["a", "b", "c"]
    del left[at]
    assert read(edit.remove(text, ("h", at)))["h"] == left


def test_a_block_of_text_is_no_trouble() -> None:
    text = "a:\n  b: |\n    some\n    lines\n\n# c\nd: 1\n"
    new = edit.put(text, ("a", "e"), 2)
    kept(text, new)
    assert read(new) == {"a": {"b": "some\nlines\n", "e": 2}, "d": 1}


@pytest.mark.parametrize(
    "change",
    [
        lambda: edit.put("a:\n", ("a", "b"), 1),
        lambda: edit.put("a: 1\n", ("a",), 1),
        lambda: edit.put("# nothing\n", ("a",), 1),
        lambda: edit.append("a: {}\n", ("a",), 1),
        lambda: edit.append("a: []\n", ("b",), 1),
        lambda: edit.remove("a: [{out: true}]", ("a", 0, "out")),
        lambda: edit.remove("a:\n- out: true\n  b: 1\n", ("a", 0, "out")),
        lambda: edit.remove("a: [b]", ("a", 3)),
    ],
)
def test_what_has_no_place_is_refused(change: Any) -> None:
    with pytest.raises(edit.NotEditable):
        change()
