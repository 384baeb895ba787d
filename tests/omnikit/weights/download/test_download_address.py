"""What lies at an address: with checksums there, and without."""

from __future__ import annotations

import json
from typing import Iterator

import pytest
from weights_server import WeightsServer, sha256

from hostkit.base.errors import ActionError
from omnikit.weights.download.request import Requests
from omnikit.weights.download.source import of_url
from omnikit.weights.download.types import Listing

pytestmark = pytest.mark.slow

INDEX = "model.safetensors.index.json"
FILES = {
    "config.json": b"{}",
    INDEX: json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}).encode(),
    "one.safetensors": b"1",
    "two.safetensors": b"22",
    "odd name.txt": b"x",
}
TEXTS = {"config.json", INDEX, "SHA256SUMS"}  # that are read, small as they are


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    made = WeightsServer(FILES)
    yield made
    made.close()


def listing(server: WeightsServer) -> Listing:
    return of_url(f"{server.folder}/", Requests(10), None)


def test_checksums_name_everything(server: WeightsServer) -> None:
    lines = [f"{sha256(data)}  {name}\n" for name, data in FILES.items()]
    server.files["SHA256SUMS"] = "".join(lines).encode()
    found = listing(server)
    assert {file.name: file.size for file in found.files} == {
        name: len(data) for name, data in FILES.items()
    }
    assert set(server.fetched()) == TEXTS and not found.notes


def test_the_index_names_the_shards(server: WeightsServer) -> None:
    found = {file.name: file.size for file in listing(server).files}
    assert found == {name: len(data) for name, data in FILES.items() if name != "odd name.txt"}


def test_a_folder_is_named_by_nobody_and_its_files_by_the_checksums(server: WeightsServer) -> None:
    server.files["sub/a.json"] = b"{}"
    assert "sub/a.json" not in {file.name for file in listing(server).files}
    server.files["SHA256SUMS"] = f"{sha256(b'{}')}  sub/a.json\n".encode()
    assert "sub/a.json" in {file.name for file in listing(server).files}


def test_checksums_name_files_and_their_hashes(server: WeightsServer) -> None:
    server.files["sha256sum.txt"] = f"{sha256(b'x')}  ./odd name.txt\n".encode()
    found = {file.name: file.hash for file in listing(server).files}
    assert set(found) == set(FILES)
    assert found["odd name.txt"] == f"sha256:{sha256(b'x')}" and found["config.json"] == ""


def test_a_file_that_only_the_checksums_name_is_missed(server: WeightsServer) -> None:
    server.files["SHA256SUMS"] = f"{sha256(b'x')}  absent.json\n".encode()
    with pytest.raises(ActionError, match=r"lacks 1 files .*: absent\.json"):
        listing(server)


def test_an_address_without_a_model_is_told(server: WeightsServer) -> None:
    server.files = {}
    with pytest.raises(
        ActionError, match=r"has no checksums \(SHA256SUMS\), no .* no checkpoint \(HTTP 404\)"
    ) as raised:
        listing(server)
    assert "weights.download.source" in str(raised.value)
    assert "sha256sum * > SHA256SUMS" in str(raised.value)


def test_a_shard_that_only_the_index_names_does_not_vanish(server: WeightsServer) -> None:
    del server.files["two.safetensors"]
    assert listing(server).lost == {"two.safetensors": "HTTP 404, the index names it"}


def test_a_checksummed_file_that_is_refused_is_told_with_its_status(server: WeightsServer) -> None:
    server.files["SHA256SUMS"] = f"{sha256(b'{}')}  config.json\n".encode()
    server.head_faults["config.json"] = 410
    with pytest.raises(ActionError, match=r"lacks 1 files .*: config\.json \(HTTP 410\)"):
        listing(server)


@pytest.mark.parametrize("status", [400, 403, 405, 501])
def test_a_server_that_refuses_head_is_asked_for_one_byte(
    server: WeightsServer, status: int
) -> None:
    server.files["vocab.json"] = b""
    server.head_faults = dict.fromkeys(server.files, status)
    found = {file.name: (file.size, file.version[:5]) for file in listing(server).files}
    wanted = {name: (len(data), "etag:") for name, data in server.files.items()}
    del wanted["odd name.txt"]
    assert found == wanted
    ranges = {given for method, name, given in server.asked if name == "one.safetensors"}
    assert ranges == {None, "bytes=0-0"}


def test_the_code_that_the_configuration_names_is_looked_for(server: WeightsServer) -> None:
    classes = {
        "AutoConfig": "configuration_x.XConfig",
        "AutoModel": "modeling_x.XModel",
        "AutoTokenizer": ["tokenization_x.X", None],
        "AutoProcessor": "other/repository--far.Away",
    }
    server.files["config.json"] = json.dumps({"auto_map": classes}).encode()
    server.files["configuration_x.py"] = b"code"
    found = listing(server)
    assert "configuration_x.py" in {file.name for file in found.files}
    assert not found.lost
    assert list(found.notes)[1:] == [
        "modeling_x.py is not there (HTTP 404), config.json names it in auto_map",
        "tokenization_x.py is not there (HTTP 404), config.json names it in auto_map",
    ]


def test_a_page_in_place_of_a_file_is_no_file(server: WeightsServer) -> None:
    server.page = b"<html>log in</html>"
    with pytest.raises(ActionError, match=r"no checkpoint \(a web page instead"):
        listing(server)
