"""2P1D and 1P1D of the twin of omni-infer's image on four SSH hosts with Docker engines.

The whole path: images, rank tables, servers, proxy, requests. The twin's servers die where the real
ones die (tests/twin), so what runs here has devices, ranks, ports, tables and environment right.
The tests share the hosts and build on each other, in order.
"""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any, Iterator, Sequence

import pytest
import twin_image
from docker_host import DockerHost, wait_for
from twin_fleet import TwinSite, ascend_site, site, twin_fleet
from wrong_deployments import BY_DEPLOY

from hostkit.base.health import request

HOSTS = ["p0", "p1", "d0", "d1"]
TWO = "{prefill: [{hosts: [p0]}, {hosts: [p1]}], decode: [{hosts: [d0, d1]}], proxy: p0}"
ONE = "{prefill: [{hosts: [p1]}], decode: [{hosts: [d0, d1]}], proxy: p0}"
# Of vllm-ascend: prefill and one of two decode instances on a host, the other over two hosts.
SEVERAL = (
    '{prefill: [{hosts: [p0], devices: "0-3"}], decode: [{hosts: [p0], devices: "8-11"},'
    ' {hosts: [d0, d1], devices: "0-1"}], proxy: p0}'
)
DECODE = {"d0": [f"d0.{n}" for n in range(16)], "d1": [f"d1.{n}" for n in range(16)]}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def archive(docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The twin's image, as somebody brings it who has no registry."""
    made = twin_image.save_twin_image(docker_host, tmp_path_factory.mktemp("twin") / "twin.tar")
    yield made
    made.unlink()


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, TwinSite]]:
    folder = tmp_path_factory.mktemp("twins")
    with twin_fleet(folder / "fleet", HOSTS) as (fleet, engines):
        yield {
            "twin2p1d": site(folder, "twin2p1d", TWO, fleet, engines),
            "twin1p1d": site(folder, "twin1p1d", ONE, fleet, engines),
            "ascend": ascend_site(folder, "ascend", SEVERAL, fleet, engines),
        }


@pytest.fixture
def two(sites: dict[str, TwinSite]) -> TwinSite:
    return sites["twin2p1d"]


def ask(site: TwinSite, path: str, body: dict[str, Any]) -> str:
    """The proxy's answer to a POST, as text."""
    address = site.fleet.hosts["p0"].address
    answer = request(f"http://{address}:7000{path}", body=body, timeout_s=20)
    assert answer.status == 200, answer.text
    return str(answer.text)


PLACES = [(host, 9100 + n + k) for n, host in enumerate(("d0", "d1")) for k in range(16)]


def pulled(site: TwinSite, places: Sequence[tuple[str, int]] = PLACES) -> int:
    """How often decode servers (host and port) took KV over from a prefill server."""
    total = 0.0
    for host, port in places:
        address = site.fleet.hosts[host].address
        text = str(request(f"http://{address}:{port}/metrics", timeout_s=5).text)
        total += sum(float(r.split()[1]) for r in text.splitlines() if r.startswith("omni_twin"))
    return int(total)


def os_kill(site: TwinSite, host: str, pid: int) -> None:
    """End a server of a host (its pid is the host's) as the kernel would."""
    site.fleet.run(host, f"kill -{int(signal.SIGKILL)} {pid}")


def test_the_image_is_shipped(two: TwinSite, archive: Path) -> None:
    words = ["--from-archive", str(archive), "--json"]
    hosts = json.loads(two.run("pull_image.py", *words).stdout)["hosts"]
    assert {host: result["action"] for host, result in hosts.items()} == dict.fromkeys(
        HOSTS, "loaded"
    )


@pytest.mark.parametrize("name", BY_DEPLOY)
def test_a_wrong_deployment_is_refused_before_a_server_starts(name: str, two: TwinSite) -> None:
    settings, says = BY_DEPLOY[name]
    words = [word for one in settings for word in ("--set", one)]
    done = two.run("deploy.py", *words, code=None)
    assert done.returncode in (1, 2) and says in done.stderr, done.stderr
    assert not any(f" {node}: started on" in done.stderr for node in HOSTS)


def test_two_prefill_instances_and_32_decode_servers_become_ready(two: TwinSite) -> None:
    done = two.run("deploy.py", "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ready"] and set(result["changed"]) == {"p0", "p1", "d0", "d1", "c0"}
    assert set(two.pids()) == {"p0", "p1", "c0", *DECODE["d0"], *DECODE["d1"]}
    assert "left out, done in njs" in two.fleet.run("p0", "cat /data/omnikit/logs/c0/*").stdout


def test_requests_go_through_prefill_and_decode(two: TwinSite) -> None:
    before = pulled(two)
    body = {"model": "deepseek", "prompt": "a prompt of some length", "max_tokens": 5}
    first = json.loads(ask(two, "/v1/completions", body))
    assert first["usage"]["completion_tokens"] == 5 and first["choices"][0]["text"].strip()
    for _ in range(7):  # whichever servers are asked
        assert json.loads(ask(two, "/v1/completions", body))["choices"] == first["choices"]
    streamed = ask(two, "/v1/completions", {**body, "stream": True})
    parts = [json.loads(row[6:]) for row in streamed.split("\n\n") if row.startswith("data: {")]
    assert "".join(part["choices"][0]["text"] for part in parts) == first["choices"][0]["text"]
    assert streamed.rstrip().endswith("data: [DONE]")
    chat = {"model": "deepseek", "messages": [{"role": "user", "content": "hello"}]}
    answer = json.loads(ask(two, "/v1/chat/completions", {**chat, "max_tokens": 3}))
    assert answer["choices"][0]["message"]["content"].strip()
    assert pulled(two) - before == 10


def test_a_second_deployment_changes_nothing(two: TwinSite) -> None:
    before = two.containers(), two.pids()
    assert "is ready: nothing to change" in two.run("deploy.py").stderr
    assert (two.containers(), two.pids()) == before


def test_a_killed_prefill_server_is_named_and_mended_alone(two: TwinSite) -> None:
    before = two.pids()
    os_kill(two, "p1", before["p1"])
    assert "p1 failed" in two.run("status.py", code=1).stdout
    said = two.run("doctor.py", code=1)
    assert "p1" in said.stdout and "killed" in said.stdout
    assert "to do: start p1\n" in two.run("deploy.py").stderr
    after = two.pids()
    assert {name for name in after if after[name] != before[name]} == {"p1"}


def test_a_killed_decode_server_ends_the_instance_which_is_mended(two: TwinSite) -> None:
    before = two.pids()
    os_kill(two, "d1", before["d1.3"])
    wait_for(
        lambda: "d0.0 failed" in two.run("status.py", code=1).stdout,
        "the other ranks notice",
        30,
    )

    def named() -> bool:
        said = two.run("doctor.py", code=1).stdout
        return "d1.3" in said and "killed" in said

    wait_for(named, "doctor names who was killed")
    two.run("deploy.py")
    after = two.pids()
    assert {n for n in after if after[n] == before[n]} == {"p0", "p1", "c0"}


def test_stop_leaves_no_server_and_clean_up_no_container(two: TwinSite) -> None:
    two.run("stop.py")
    for host in HOSTS:
        assert "vllm" not in two.fleet.run(host, "ps -eo args").stdout
    two.run("clean_up.py", "--yes")
    assert two.containers() == {}


def test_one_prefill_instance_serves(sites: dict[str, TwinSite]) -> None:
    one = sites["twin1p1d"]
    done = one.run("deploy.py", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["ready"]
    assert set(one.pids()) == {"p0", "c0", *DECODE["d0"], *DECODE["d1"]}
    body = {"model": "deepseek", "prompt": "another prompt", "max_tokens": 5}
    assert json.loads(ask(one, "/v1/completions", body))["choices"][0]["text"].strip()
    assert pulled(one) > 0
    one.run("stop.py")
    one.run("clean_up.py", "--yes")
    assert one.containers() == {}


def _caches(site: TwinSite, host: str) -> list[dict[str, Any]]:
    """What the keys of compiled code on a host were made of."""
    records = site.fleet.hosts[host].path("/data/omnikit/caches").glob("*/key.json")
    return [json.loads(record.read_text())["inputs"] for record in records]


def test_vllm_ascend_serves_with_two_decode_instances(sites: dict[str, TwinSite]) -> None:
    """KV by Mooncake without rank tables, on parts of hosts; a killed rank is named and mended."""
    ascend = sites["ascend"]
    done = ascend.run("deploy.py", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["ready"]
    pids = ascend.pids()
    ranks = {"p0": 2, "d0": 4, "d1": 2, "d2": 2}
    assert set(pids) == {"c0", *(f"{n}.{k}" for n, many in ranks.items() for k in range(many))}
    one, other = [("p0", 9100 + k) for k in range(4)], [("d0", 9100), ("d0", 9101)]
    other += [("d1", 9101), ("d1", 9102)]
    before = pulled(ascend, [*one, *other])  # by the deployment's own requests
    body = {"model": "deepseek", "prompt": "a prompt of some length", "max_tokens": 5}
    answers = [json.loads(ask(ascend, "/v1/completions", body)) for _ in range(8)]
    assert all(answer["choices"] == answers[0]["choices"] for answer in answers)
    assert pulled(ascend, one) > 0 and pulled(ascend, other) > 0
    assert pulled(ascend, [*one, *other]) - before == len(answers)
    kept = {name: _caches(ascend, name) for name in ("p0", "d0", "d1")}
    assert {name: len(inputs) for name, inputs in kept.items()} == {"p0": 2, "d0": 1, "d1": 1}
    assert kept["d0"] == kept["d1"], "another rank of an instance is no other key"
    [one_of_both] = kept["d0"]
    assert one_of_both["driver"] == "25.2.1" and one_of_both["image"] and one_of_both["chips"]
    os_kill(ascend, "d1", pids["d2.1"])
    wait_for(
        lambda: "d1.0 failed" in ascend.run("status.py", code=1).stdout,
        "the other ranks of its instance notice",
        30,
    )
    assert "killed" in ascend.run("doctor.py", code=1).stdout
    assert re.search(r"d2 on d1: cache \w{32} there", ascend.run("deploy.py").stderr)
    after = ascend.pids()
    assert {name for name in pids if after[name] == pids[name]} == {
        *("c0", "p0.0", "p0.1"),
        *(f"d0.{k}" for k in range(4)),
    }
    ascend.run("stop.py")
    ascend.run("clean_up.py", "--yes")
    assert ascend.containers() == {}
