"""Who gets the load, and what is said when nobody can take it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from load_cases import a_load, a_target
from port_rooms import free_port
from proxy_backend import Backend
from settings_file import FLEET, load

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.load.targets import check, find, why_not
from omnikit.topology.topology import make_plan

LOCAL = config.load("local", environ={})


@pytest.fixture
def serving() -> Iterator[Callable[..., str]]:
    """Starts a server that answers every request with this data, and gives its URL."""
    started: list[Backend] = []

    def start(status: int, data: Any) -> str:
        backend = Backend("decode", behave=lambda h, _: h.answer(status, json.dumps(data)))
        started.append(backend)
        return "http://{}:{}".format(*backend.address)

    yield start
    for backend in started:
        backend.close()


def test_the_entry_of_the_environment_is_the_default() -> None:
    plan = make_plan(LOCAL)
    target = find(LOCAL, plan)
    assert (target.name, target.url, target.model) == ("local", "http://127.0.0.1:7000", "tiny")
    assert target.tokenizer == plan.model_path and not target.trust_remote_code
    one = find(LOCAL, plan, instance="d0", model="other", tokenizer="/t")
    assert (one.name, one.url) == ("local d0", "http://127.0.0.1:9100")
    assert (one.model, one.tokenizer) == ("other", "/t")


def test_servers_of_one_node_have_names_of_their_own(tmp_path: Path) -> None:
    fleet = load(tmp_path, FLEET)
    plan = make_plan(fleet)
    assert find(fleet, plan, instance="d0").url == find(fleet, plan, instance="d0.0").url
    assert find(fleet, plan, instance="d1.1").url == "http://192.0.2.4:9102"
    assert find(fleet, plan).trust_remote_code


def test_a_url_may_end_as_people_write_it() -> None:
    plan = make_plan(LOCAL)
    for text in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"):
        assert find(LOCAL, plan, url=text).url == "http://h:1"
    assert find(LOCAL, plan, url="https://h:1/v1").url == "https://h:1"
    assert find(LOCAL, plan, url="http://[::1]:80").name == "http://[::1]:80"
    for text in ("h:1", "ftp://h:1", "http://h:1/x", "http://u:p@h:1", "http://h:x"):
        with pytest.raises(InputError, match="expected http://HOST:PORT"):
            find(LOCAL, plan, url=text)
    for text in ("http://127.0.0.1:99999", "http://h:0", "http://a..b:80", f"http://{'x' * 64}"):
        with pytest.raises(InputError, match="expected http://HOST:PORT"):
            find(LOCAL, plan, url=text)


def test_an_unknown_server_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"there is no server 'd1', is it 'd0'\?") as caught:
        find(LOCAL, make_plan(LOCAL), instance="d1")
    assert "one of p0, p1, d0" in str(caught.value)


def test_nothing_served_says_what_status_would() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(InputError) as caught:
        check(LOCAL, a_target(url=url), a_load(), ours=True)
    said = str(caught.value)
    assert f"{url} does not serve (ConnectionRefusedError" in said
    assert "p0        prefill  local" in said and "make deploy" in said
    with pytest.raises(InputError, match=r"--url: .* does not serve"):
        check(LOCAL, a_target(url=url), a_load(), ours=False)


def test_a_served_model_with_room_is_accepted(serving: Callable[..., str]) -> None:
    url = serving(200, {"data": [{"id": "tiny", "max_model_len": 12}]})
    check(LOCAL, a_target(url=url), a_load(), ours=True)
    with pytest.raises(InputError, match="8 tokens in and 5 out are 13, but tiny takes 12 in all"):
        check(LOCAL, a_target(url=url), a_load(output_tokens=5), ours=True)


def test_another_model_is_refused_with_those_that_are_served(serving: Callable[..., str]) -> None:
    url = serving(200, {"data": [{"id": "tiny"}]})
    with pytest.raises(InputError, match="serves tiny, not 'tinx'") as caught:
        check(LOCAL, a_target("tinx", url), a_load(), ours=True)
    assert "--model tiny" in str(caught.value)


def test_an_error_in_place_of_models_is_shown(serving: Callable[..., str]) -> None:
    url = serving(502, {"error": "No prefill server can be reached."})
    with pytest.raises(InputError, match=r"status 502: .*No prefill server"):
        check(LOCAL, a_target(url=url), a_load(), ours=False)


def test_the_reason_of_failed_requests_is_asked_for(serving: Callable[..., str]) -> None:
    url = serving(400, {"error": "too long"})
    assert why_not(LOCAL, a_target(url=url), a_load()) == 'status 400: {"error": "too long"}'
    gone = f"http://127.0.0.1:{free_port()}"
    assert "ConnectionRefusedError" in why_not(LOCAL, a_target(url=gone), a_load(chat=True))
    fine = serving(200, {})
    assert "answered now" in why_not(LOCAL, a_target(url=fine), a_load(chat=True))
