"""The tree of settings: finding values and where they came from."""

from __future__ import annotations

from omnikit.yaml.strict_yaml import parse

TREE = parse("a:\n  b: 1\n  c: [x, {d: z}]\ne: {}\n", "file.yaml", layer=3)


def test_every_value_knows_file_line_and_layer() -> None:
    assert str(TREE.at(("a", "b")).origin) == "file.yaml:2"
    assert str(TREE.at(("a", "c", 1, "d")).origin) == "file.yaml:3"
    assert TREE.at(("a", "b")).origin.layer == 3
    assert str(TREE.key_origins["e"]) == "file.yaml:4"


def test_plain_gives_ordinary_data() -> None:
    assert TREE.plain() == {"a": {"b": 1, "c": ["x", {"d": "z"}]}, "e": {}}


def test_at_stops_at_the_deepest_value_there_is_and_find_does_not() -> None:
    assert TREE.at(("a", "zz", "q")) is TREE.value["a"]
    assert TREE.at(("a", "c", 9)).plain() == ["x", {"d": "z"}]
    assert TREE.find(("a", "zz")) is None
    assert TREE.find(("a", "b", "deeper")) is None
    found = TREE.find(("a", "c", 0))
    assert found is not None and found.value == "x"


def test_leaves_are_scalars_lists_and_empty_maps_in_order() -> None:
    assert [path for path, _ in TREE.leaves()] == [("a", "b"), ("a", "c"), ("e",)]
