"""Reading YAML files and option values: what is accepted, what is refused and how."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostkit.base.errors import InputError
from omnikit.yaml.node import Origin
from omnikit.yaml.strict_yaml import parse, parse_value, read_text

OPTION = Origin("--set a", 0, 7)


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "f", "the file is empty"),
        ("# only a comment\n", "f", "the file is empty"),
        ("- a\n", "f:1", "found a list where a map"),
        ("word\n", "f:1", "found a single value where a map"),
        ("a:1\n", "f:1", "found a single value where a map"),
        ("a: 1\n\nb: 2\na: 3\n", "f:4", "the key 'a' stands twice, first on line 1"),
        ("s: {x: 1, x: 2}\n", "f:1", "the key 'x' stands twice"),
        ("args:\n  a_b: 1\n  a-b: 2\n", "f:3", "the key 'a-b' stands twice, as 'a_b'"),
        ("a:\n\tb: 1\n", "f:2", "a tab stands where YAML allows only spaces"),
        ("a: b\n\tc: d\n", "f:2", "a tab stands where YAML allows only spaces"),
        ("a: 1\n---\nb: 2\n", "f:2", "a second YAML document"),
        ("a: [1, 2\nb: 3\n", "f:2", "not valid YAML"),
        ("ok: 1\na: [1\n", "f:2", "not valid YAML"),
        ("ok: 1\na: 'text\n", "f:2", "not valid YAML"),
        ("a: b: c\n", "f:1", "not valid YAML"),
        ("a: 1\nb: \x07\n", "f:2", "a control character (U+0007)"),
        ("a: &x 1\nb: *x\n", "f:1", "an alias (*name) is not supported"),
        ("a: &x [*x]\n", "f:1", "an alias (*name) is not supported"),
        ("b: {<<: {c: 1}}\n", "f:1", "merge keys (<<) are not supported"),
        ("a: !vault x\n", "f:1", "the YAML tag !vault is not supported"),
        ("? [a, b]\n: 1\n", "f:1", "a key must be a plain word"),
        ("x: 1\na: no\n", "f:2", "the unquoted value no means different things"),
        ("a: 012\n", "f:1", "the unquoted value 012 means different things"),
        ("a: 12:30\n", "f:1", "the unquoted value 12:30 means different things"),
    ],
)
def test_a_file_that_could_be_misread_is_refused(text: str, where: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, "f")
    assert what in caught.value.what
    assert str(caught.value.where).startswith(where)


@pytest.mark.parametrize("depth", [100, 5000])
def test_text_without_end_of_nesting_is_refused(depth: int) -> None:
    with pytest.raises(InputError, match="nested too deeply"):
        parse("a: " + "[" * depth + "]" * depth, "f")


@pytest.mark.parametrize("text", ['a: "no"\nb: "012"\n', "a: 'no'\nb: '012'\n"])
def test_quotes_make_text(text: str) -> None:
    assert parse(text, "f").plain() == {"a": "no", "b": "012"}


def test_crlf_and_a_byte_order_mark_are_harmless(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes("\ufeffa: 1\r\nb:\r\n  - x\r\n".encode())
    tree = parse(read_text(path), "f")
    assert tree.plain() == {"a": 1, "b": ["x"]}
    assert str(tree.at(("b", 0)).origin) == "f:3"


@pytest.mark.parametrize(
    ("data", "line", "encoding"),
    [
        ("a: 1\n# 路径\n".encode("gb18030"), 2, "GB18030"),
        ("a: 1\n".encode("utf-16"), 1, "UTF-16"),
        (b"a: caf\xe9\n", 1, "LATIN1"),
    ],
)
def test_a_file_in_another_encoding_is_named_with_the_way_to_convert_it(
    tmp_path: Path, data: bytes, line: int, encoding: str
) -> None:
    path = tmp_path / "o ther.yaml"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_text(path)
    assert "not UTF-8" in caught.value.what
    assert caught.value.where == f"{path}:{line}"
    assert f"iconv -f {encoding} -t UTF-8 -o converted.yaml '{path}'" in str(caught.value.todo)


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    cases = {"missing.yaml": "No such file", ".": "it is a folder", "loop": "symbolic links"}
    for name, reason in cases.items():
        with pytest.raises(InputError) as caught:
            read_text(tmp_path / name)
        assert reason in caught.value.what
        assert str(tmp_path / name) in str(caught.value)


def test_a_file_without_the_right_to_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text("a: 1\n")
    path.chmod(0)
    child = os.fork()  # root reads everything: look at it as somebody else
    if child == 0:
        code = 1
        try:
            if os.getuid() == 0:
                tmp_path.chmod(0o755)
                os.chdir(tmp_path)
                os.setgid(65534)
                os.setuid(65534)
            read_text(Path("secret.yaml") if os.getuid() == 65534 else path)
        except InputError as error:
            code = 0 if "Permission denied" in error.what else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="larger than 16 MiB"):
        read_text(path)


@pytest.mark.parametrize(
    "text",
    [
        "password: 0123_hunter2\n",
        "password: 012\n",
        "password: no\n",
        "x: {password: {file: 12:30}}\n",
    ],
)
def test_a_secret_may_look_like_anything_without_being_shown(text: str) -> None:
    assert parse(text, "f").plain()


def test_a_syntax_error_does_not_show_a_line_with_a_password() -> None:
    with pytest.raises(InputError) as caught:
        parse("a:\n  password: hunter2: x\n", "f")
    assert "hunter2" not in str(caught.value)
    assert caught.value.where == "f:2"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("true", True),
        ("", None),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
        ('"5"', "5"),
        ("'no'", "no"),
        ("#abc", "#abc"),
        ("a: b # c", "a: b # c"),
        ("*x", "*x"),
        ("- a", "- a"),
    ],
)
def test_an_option_is_one_word_unless_brackets_or_quotes_begin_it(text: str, value: Any) -> None:
    assert parse_value(text, OPTION).plain() == value


@pytest.mark.parametrize("text", ["{a: 1", '"x', "[!x y]", "no", "[no]", "[&a b, *a]"])
def test_a_broken_option_names_the_option(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_value(text, OPTION)
    assert caught.value.where == "--set a"


@given(st.text(max_size=30).filter(lambda text: text[:1] not in ("[", "{", '"', "'")))
def test_any_other_text_of_an_option_arrives_unchanged(text: str) -> None:
    try:
        value = parse_value(text, OPTION).plain()
    except InputError:
        return
    if isinstance(value, str):
        assert value == text


@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda b: b.decode("latin-1")))
def test_no_text_whatever_breaks_the_reader(text: str) -> None:
    try:
        assert isinstance(parse(text, "f").plain(), dict)
    except InputError as error:
        assert str(error.where).startswith("f")
