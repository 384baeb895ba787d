"""What a safetensors file says of itself is read at a cost that its length bounds, and believed
only where the library believes it; where we are stricter, the case says so.
"""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError, safe_open

from hostkit.base.errors import InputError
from hostkit.checks.model import header
from hostkit.files import tensor_header
from omnikit.weights.checkpoint import headers

ONE = '{"dtype":"I8","shape":[1],"data_offsets":[0,1]}'


def file(text: str | bytes, data: bytes = b"x") -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw + data


def tensor(shape: str = "[1]", offsets: str = "[0,1]", dtype: str = '"I8"', more: str = "") -> str:
    return f'{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}{more}}}}}'


CASES = {
    "one": file(tensor()),
    "a scalar": file(tensor("[]")),
    "none": file("{}", b""),
    "an empty one first": file(f'{{"e":{tensor("[0]", "[0,0]")[5:-1]},"a":{ONE}}}'),
    "blanks around it": file(f" {tensor()}  "),
    "another field": file(tensor(more=',"x":1.5')),
    "metadata of texts": file(f'{{"__metadata__":{{"format":"pt"}},"a":{ONE}}}'),
    "no metadata": file(f'{{"__metadata__":null,"a":{ONE}}}'),
    "metadata of numbers": file(f'{{"__metadata__":{{"a":1}},"a":{ONE}}}'),
    "metadata twice": file(f'{{"__metadata__":{{}},"__metadata__":{{}},"a":{ONE}}}'),
    "a field twice": file(tensor(more=',"dtype":"I8"')),
    "64 dimensions": file(tensor(f"[{','.join('1' * 64)}]")),
    "a fraction": file(tensor("[1.0]")),
    "true": file(tensor("[true]")),
    "minus nothing": file(tensor(offsets="[-0,1]")),
    "a negative": file(tensor("[-1]")),
    "more than 64 bits": file(tensor("[0,99999999999999999999]", "[0,0]"), b""),
    "a product of more": file(tensor("[9999999999999999999,9999999999999999999,0]", "[0,0]"), b""),
    "nothing times much": file(tensor("[0,9999999999999999999,9999999999999999999]", "[0,0]"), b""),
    "5000 digits": file(tensor(f"[{'1' * 5000}]")),
    "a lone surrogate": file(f'{{"\\ud800":{ONE}}}'),
    "UTF-16": file(tensor().encode("utf-16")),
    "a mark before it": file(tensor().encode("utf-8-sig")),
    "no number": file(tensor(more=',"x":NaN')),
    "an unknown dtype": file(tensor(dtype='"I9"')),
    "a dtype that is none": file(tensor(dtype="[]")),
    "another size": file(tensor(dtype='"F64"')),
    "half bytes": file(tensor("[2]", dtype='"F4"')),
    "half a byte": file(tensor("[1]", dtype='"F4"')),
    "data without tensors": file("{}"),
    "a list": file("[]"),
    "a hole": file(tensor(offsets="[1,2]"), b"xx"),
    "an overlap": file(f'{{"a":{ONE},"b":{ONE}}}'),
    "three places": file(tensor(offsets="[0,1,2]")),
    "backwards": file(tensor(offsets="[1,0]")),
    "three bytes": b"abc",
    "no length": struct.pack("<Q", 0),
    "a length of 2^63": struct.pack("<Q", 2**63) + b"{}",
    "shorter than it says": struct.pack("<Q", 3) + b"{}",
    "something behind it": file(tensor() + "\0"),
    "deeper than it needs": file("[" * 100_000),
}
# The library takes the last of two, and shapes that no array of torch or numpy can have.
STRICTER = {
    "a name twice": file(f'{{"a":{ONE},"a":{ONE}}}'),
    "65 dimensions": file(tensor(f"[{','.join('1' * 65)}]")),
}


def ours(path: Path) -> bool:
    """Whether it is taken; both readers, for hosts and for conversions, say the same."""
    problem = header(path)[1]
    try:
        headers.read_header(path)
    except InputError as error:
        assert problem and error.what
        return False
    assert problem is None
    return True


@pytest.mark.parametrize("case", [*CASES, *STRICTER])
def test_the_library_says_the_same(case: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes({**CASES, **STRICTER}[case])
    try:
        with safe_open(path, "numpy"):
            expected = True
    except SafetensorError:
        expected = False
    assert ours(path) == (expected and case not in STRICTER)


@pytest.mark.parametrize(
    "text",
    [
        tensor(f"[{','.join('9' * 3_000_000)}]"),
        tensor(f"[{'1' * 3_000_000}]"),
        tensor(f"[{','.join(['1'] * 2_500_000)}]"),
        "{" + ",".join(f'"t{n}":{{"dtype":"I8"}}' for n in range(100_000)) + "}",
        "{" + f'"a":{ONE},' * 100_000 + '"b":1}',
    ],
    ids=["3 million dimensions", "3 million digits", "too many numbers", "no shapes", "one name"],
)
def test_a_hostile_header_costs_seconds_at_most(text: str, tmp_path: Path) -> None:
    """3 million dimensions took 82 s."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(file(text))
    began = time.process_time()
    with pytest.raises(ValueError, match="has a broken header"):
        tensor_header.read(path)
    assert time.process_time() - began < 15
