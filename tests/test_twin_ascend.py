"""The twin of vllm-ascend: its rules one by one, then a whole deployment of it on this machine.

Prefill with two data-parallel ranks of two devices, decode with two of one: started by deploy as
processes, behind a real nginx. The slow tests share one deployment and build on each other.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Callable, Iterator

import pytest
import twin_here
import twin_image

from hostkit.base.health import request

ROOT = Path(__file__).resolve().parents[1]
PULLED = 'source="external_kv_transfer"'
COMPUTED = 'source="local_compute"'
ASKED = {"do_remote_decode": True, "do_remote_prefill": False}

Twin = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    """Modules of the twin by name, imported here and forgotten afterwards."""
    folder = tmp_path_factory.mktemp("site")
    twin_image.packages(folder, "vllm-ascend")
    before = {name for name in sys.modules if name.split(".")[0] == "vllm"}
    assert not before, "a real vLLM is imported"
    sys.path.insert(0, str(folder))
    try:
        yield lambda name: importlib.import_module(f"vllm.twin.{name}")
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == "vllm"]:
            del sys.modules[name]


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has."""
    for first in range(9400, 9900, count):
        try:
            probes = [socket.create_server(("127.0.0.1", first + n)) for n in range(count)]
        except OSError:
            continue
        for probe in probes:
            probe.close()
        return first
    raise AssertionError("no ports are free")


def values(twin: Twin, *words: str, **kv: Any) -> Any:
    """What the twin reads of a server's words. kv: of its hand-over, besides its sizes."""
    extra = {"prefill": {"dp_size": 2, "tp_size": 2}, "decode": {"dp_size": 2, "tp_size": 1}}
    data = {"kv_connector": "MooncakeConnectorV1", "kv_connector_extra_config": extra, **kv}
    told = ("--kv-transfer-config", json.dumps(data))
    return twin("arguments").read(["serve", "/m", *words, *told])


PREFILL = ("--tensor-parallel-size", "2", "--data-parallel-size", "2", "--data-parallel-rank", "1")
DECODE = ("--data-parallel-size", "2", "--data-parallel-rank", "0")


def sides(twin: Twin, *more: str, **decode_kv: Any) -> tuple[Any, Any]:
    """A prefill and a decode server's state, connected on this machine. more: words of decode."""
    mooncake, parallel, serving = twin("mooncake"), twin("ascend"), twin("serving")
    states = []
    port = free_ports(4)
    for words, kv in (
        (PREFILL, {"kv_role": "kv_producer", "kv_port": str(port)}),
        ((*DECODE, *more), {"kv_role": "kv_consumer", **decode_kv}),
    ):
        read = values(twin, *words, **kv)
        mooncake.sizes(read)
        state = serving.State("tiny", 4096)
        state.held = mooncake.connect(read, parallel.layout(read), "127.0.0.1", state)
        states.append(state)
    return states[0], states[1]


def test_decode_gets_the_kv_that_prefill_tells_of(twin: Twin) -> None:
    prefill, decode = sides(twin)
    told = prefill.keep("r1", "a prompt", {"kv_transfer_params": ASKED, "min_tokens": 1})
    assert told["remote_ptp_size"] == 2
    # The ports of rank 1 lie behind the two of rank 0.
    assert told["remote_port"] == prefill.held.place[1]
    assert decode.pull(told) == "a prompt"
    with pytest.raises(OSError, match="no KV of request r1"):
        decode.pull(told)  # freed


def test_prefill_hands_over_only_what_ended_by_length(twin: Twin) -> None:
    prefill, decode = sides(twin)
    asked = {"kv_transfer_params": ASKED}
    assert prefill.keep("r1", "a prompt", asked) is None and prefill.ended(asked) == "stop"
    assert prefill.keep("r1", "a prompt", {}) is None and prefill.ended({}) == "length"
    # Decode then computes the prompt itself, and says so nowhere but in its metrics.
    assert decode.pull({"do_remote_prefill": False}) is None


def test_a_proxy_that_drops_a_part_of_the_parameters_is_noticed(twin: Twin) -> None:
    prefill, decode = sides(twin)
    told = prefill.keep("r1", "a prompt", {"kv_transfer_params": ASKED, "min_tokens": 1})
    for name in told:
        if name.startswith("do_"):
            continue
        with pytest.raises(OSError, match=name):
            decode.pull({key: value for key, value in told.items() if key != name})


@pytest.mark.parametrize(
    ("more", "kv", "says"),
    [
        (("--block-size", "64"), {}, "block_size is 128 in prefill and 64 in decode"),
        ((), {"kv_connector": "MooncakeHybridConnector"}, "kv_connector is MooncakeConnectorV1"),
    ],
)
def test_both_sides_are_told_the_same(
    more: tuple[str, ...], kv: dict[str, Any], says: str, twin: Twin
) -> None:
    prefill, decode = sides(twin, *more, **kv)
    told = prefill.keep("r1", "a prompt", {"kv_transfer_params": ASKED, "min_tokens": 1})
    with pytest.raises(OSError, match=says):
        decode.pull(told)


def test_a_taken_port_of_the_block_is_named(twin: Twin, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_ports(4)
    read = values(twin, *PREFILL, kv_role="kv_producer", kv_port=port)
    layout, state = twin("ascend").layout(read), twin("serving").State("tiny", 4096)
    taken = socket.create_server(("127.0.0.1", port + 3))  # of rank 1's second device
    with taken, pytest.raises(twin("log").Fault, match="thread failed to start"):
        twin("mooncake").connect(read, layout, "127.0.0.1", state)
    assert f"Address already in use (addr='tcp://127.0.0.1:{port + 3}')" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        ("0,9", "Set visible device failed, invalid device=9"),
        ("0, 1", "Set visible device failed"),
        ("0", "local_world_size \\(2\\) must be less than or equal"),
        ("", "207004"),
    ],
)
def test_a_wrong_list_of_devices(
    listed: str, says: str, twin: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4):
        (tmp_path / f"davinci{n}").touch()
    monkeypatch.setenv("TWIN_DEV", str(tmp_path))
    asked = SimpleNamespace(tensor_parallel_size=2, pipeline_parallel_size=1)
    devices = twin("ascend").devices
    with pytest.raises(twin("log").Fault, match=says):
        devices(asked, {"ASCEND_RT_VISIBLE_DEVICES": listed})
    # Of a longer list the first are used, whatever their order.
    assert devices(asked, {"ASCEND_RT_VISIBLE_DEVICES": "3,1,0"}) == [3, 1]


def front_end(twin: Twin, port: int, rank: int, limit_s: float) -> Any:
    """A rank of two that meets the other at that port."""
    made = twin("parallel").Parallel(1, 2, rank, 0, "127.0.0.1", port)
    return twin("ascend").FrontEnd(made, limit_s)


def test_no_rank_goes_on_before_all_are_there(twin: Twin) -> None:
    port = free_ports(1)
    ranks = [front_end(twin, port, rank, 20.0) for rank in (1, 0)]
    waiting = threading.Thread(target=ranks[0].meet, daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    ranks[1].meet()
    waiting.join(20)
    assert not waiting.is_alive()
    with pytest.raises(twin("log").Fault, match="ZMQError: Address already in use"):
        front_end(twin, port, 0, 0.1).meet()


@pytest.mark.parametrize(
    ("rank", "says"),
    [
        (1, "Did not receive response from front-end process within 5 minutes"),
        (0, "1/2 clients joined"),
    ],
)
def test_a_rank_without_the_others_ends(rank: int, says: str, twin: Twin) -> None:
    with pytest.raises(twin("log").Fault, match=says):
        front_end(twin, free_ports(1), rank, 0.1).meet()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--data-parallel-rank", "0"), "can only be set when data_parallel_size > 1"),
        (("--data-parallel-size", "2", "--data-parallel-rank", "2"), "in the range"),
        (("--data-parallel-size", "2"), "no data parallelism inside of one API server"),
    ],
)
def test_a_rank_that_is_none(words: tuple[str, ...], says: str, twin: Twin) -> None:
    with pytest.raises(twin("log").Fault, match=says):
        twin("ascend").layout(values(twin, *words, kv_role="kv_both"))


def test_flags_that_the_twin_does_not_act_on_are_passed_over(twin: Twin) -> None:
    read = values(twin, "--max-num-seqs", "4", "--enable-expert-parallel", kv_role="kv_both")
    assert read.model == "/m" and read.kv_transfer_config["kv_role"] == "kv_both"
    with pytest.raises(SystemExit):
        values(twin, kv_role="kv_prefill")
    with pytest.raises(SystemExit):
        values(twin, kv_role="kv_both", kv_rol="kv_both")


def test_a_device_belongs_to_one_server(
    twin: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWIN_DEV", str(tmp_path))
    hold = twin("ascend").hold
    held = hold([0, 1], "192.0.2.1")
    with pytest.raises(twin("log").Fault, match=r"specific port\[16666\] fail"):
        hold([1, 2], "192.0.2.1")
    for one in held:
        one.close()


def test_the_metrics_say_where_prompts_came_from(twin: Twin) -> None:
    state = twin("serving").State("tiny", 4096)
    state.sources["local_compute"] += 7
    said = state.metrics()
    assert f'_by_source_total{{engine="0",model_name="tiny",{COMPUTED}}} 7.0' in said
    assert "vllm:kv_cache_usage_perc" in said


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[twin_here.Here]:
    made = twin_here.Here(tmp_path_factory.mktemp("here"))
    try:
        yield made
    finally:
        script(made, "clean_up.py", "--yes", "--logs", code=None)


def script(
    here: twin_here.Here, name: str, *words: str, code: Any = 0
) -> subprocess.CompletedProcess[str]:
    """One of the toolkit's scripts. code: its exit code; None: any."""
    done = subprocess.run(
        [sys.executable, f"scripts/{name}", "-e", str(here.file), *words],
        cwd=ROOT,
        env={**os.environ, "OMNIKIT_SITE": str(here.control)},
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
    )
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done


def pids(here: twin_here.Here) -> dict[str, Any]:
    nodes = json.loads(script(here, "status.py", "--json", code=None).stdout)["nodes"]
    return {server["name"]: server["pid"] for node in nodes for server in node["servers"]}


def counted(here: twin_here.Here, source: str) -> int:
    """Prompt tokens of decode that came from there."""
    total = 0.0
    for node in here.plans[False].nodes:
        for server in node.servers if node.role == "decode" else ():
            url = f"http://{node.address}:{server.api_port}/metrics"
            rows = str(request(url, timeout_s=5).text).splitlines()
            total += sum(float(row.split()[1]) for row in rows if source in row)
    return int(total)


def post(url: str, **body: Any) -> dict[str, Any]:
    told = {"model": "tiny", "prompt": "a prompt of some length", "max_tokens": 3, **body}
    answer = request(f"{url}/v1/completions", body=told, timeout_s=20)
    assert answer.status == 200, answer.text
    found: dict[str, Any] = json.loads(answer.text)
    return found


def url_of(here: twin_here.Here, role: str) -> str:
    """The first server of a role."""
    first = next(node for node in here.plans[False].nodes if node.role == role)
    return f"http://{first.address}:{first.servers[0].api_port}"


@pytest.mark.slow
@pytest.mark.needs("nginx", "lua")
def test_it_is_deployed_and_kv_is_handed_over(here: twin_here.Here) -> None:
    done = script(here, "deploy.py", "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ready"] and set(result["changed"]) == {"p0", "d0", "c0"}
    assert "11 of 11 prompt tokens transferred, 0 recomputed" in done.stderr
    assert set(pids(here)) == {"p0.0", "p0.1", "d0.0", "d0.1", "c0"}


@pytest.mark.slow
@pytest.mark.needs("nginx", "lua")
def test_every_request_brings_its_kv(here: twin_here.Here) -> None:
    entry = f"http://{twin_here.address()}:{here.proxy_port}"
    pulled, computed = counted(here, PULLED), counted(here, COMPUTED)
    answers = [post(entry) for _ in range(6)]  # whichever servers are asked
    assert all(one["choices"] == answers[0]["choices"] for one in answers)
    tokens = sum(one["usage"]["prompt_tokens"] for one in answers)
    assert counted(here, PULLED) - pulled == tokens and counted(here, COMPUTED) == computed


@pytest.mark.slow
@pytest.mark.needs("nginx", "lua")
def test_without_min_tokens_decode_computes_without_a_word(here: twin_here.Here) -> None:
    first = post(url_of(here, "prefill"), max_tokens=1, kv_transfer_params=ASKED)
    assert first["kv_transfer_params"] is None
    pulled, computed = counted(here, PULLED), counted(here, COMPUTED)
    answer = post(url_of(here, "decode"), kv_transfer_params=first["kv_transfer_params"])
    assert answer["choices"][0]["text"].strip()
    assert counted(here, COMPUTED) - computed == answer["usage"]["prompt_tokens"]
    assert counted(here, PULLED) == pulled


@pytest.mark.slow
@pytest.mark.needs("nginx", "lua")
def test_a_second_deployment_changes_nothing(here: twin_here.Here) -> None:
    before = pids(here)
    assert "is ready: nothing to change" in script(here, "deploy.py").stderr
    assert pids(here) == before


@pytest.mark.slow
@pytest.mark.needs("nginx", "lua")
def test_it_stops(here: twin_here.Here) -> None:
    script(here, "stop.py")
    with pytest.raises(OSError):
        socket.create_connection((twin_here.address(), here.proxy_port), timeout=2)
