"""What lies at an address: with a list of the server, with checksums, with neither."""

from __future__ import annotations

import json
from typing import Iterator

import pytest
from omnikit.errors import ActionError
from omnikit.weights import download_address
from omnikit.weights.download_request import Requests
from omnikit.weights.download_types import Listing
from weights_server import WeightsServer, sha256

INDEX = "model.safetensors.index.json"
FILES = {
    "config.json": b"{}",
    INDEX: json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}).encode(),
    "one.safetensors": b"1",
    "two.safetensors": b"22",
    "odd name.txt": b"x",
}


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    made = WeightsServer(FILES)
    yield made
    made.close()


def listing(server: WeightsServer) -> Listing:
    return download_address.of_url(f"{server.folder}/", Requests(10), None)


def test_the_servers_own_list_names_everything(server: WeightsServer) -> None:
    found = {file.name: file.size for file in listing(server).files}
    assert found == {name: len(data) for name, data in FILES.items()}
    assert server.fetched() == []  # heads only


def test_without_a_list_the_index_names_the_shards(server: WeightsServer) -> None:
    server.shows_list = False
    assert {file.name for file in listing(server).files} == set(FILES) - {"odd name.txt"}


def test_checksums_name_files_and_their_hashes(server: WeightsServer) -> None:
    server.shows_list = False
    server.files["sha256sum.txt"] = f"{sha256(b'x')}  ./odd name.txt\n".encode()
    found = {file.name: file.hash for file in listing(server).files}
    assert set(found) == set(FILES)
    assert found["odd name.txt"] == f"sha256:{sha256(b'x')}" and found["config.json"] == ""


def test_a_file_that_only_the_checksums_name_is_missed(server: WeightsServer) -> None:
    server.files["SHA256SUMS"] = f"{sha256(b'x')}  absent.json\n".encode()
    with pytest.raises(ActionError, match=r"lacks 1 files .*: absent\.json"):
        listing(server)


def test_an_address_without_a_model_is_told(server: WeightsServer) -> None:
    server.files, server.shows_list = {}, False
    with pytest.raises(ActionError, match="no list of files, no checksums and no checkpoint"):
        listing(server)
