"""Whatever is asked through the proxy is answered as by one server that does all itself.

Real vLLM servers on CPU, started once for the file; the tests use them and change nothing, but for
the last, which kills and hangs them. The proxy wants keys and speaks TLS, and its servers answer
nobody else.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from concurrent import futures
from pathlib import Path
from typing import Any, Callable, Iterator

import httpx
import openai
import pd_faults
import pytest
import steady_load
from ascend_decode import CHAT, Cut
from ascend_decode import COMPLETIONS as COMPLETION
from certificates import Authority

from hostkit.access.service import Service
from omnikit.config import config
from omnikit.deploy import alike, truth
from omnikit.topology.topology import make_plan

# Real engines, a minute.
pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua")]

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENTS = ("tests/environments/shapes.yaml", "tests/environments/shapes-alone.yaml")
SERVERS = [f"http://127.0.0.1:{port}" for port in (21000, 21001, 21100, 21101)]
PROXY, ALONE = "https://127.0.0.1:21700", "http://127.0.0.1:21800"
KEY, INTERNAL = "client-" + "a" * 30, "internal-" + "b" * 30

FOX = "The quick brown fox jumps over the lazy dog."
THREE = [FOX, "第一台服务器负责预填充，第二台负责解码。", "one two three " * 20]
IDS = [[11, 12, 13, 14], [21, 22, 23], [31, 32, 33, 34, 35]]
EVIL = {
    "do_remote_prefill": True,
    "do_remote_decode": False,
    "remote_engine_id": "nobody",
    "remote_request_id": "nothing",
    "remote_block_ids": [[0, 1]],
    "remote_host": "127.0.0.1",
    "remote_port": 9,
    "tp_size": 1,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
DICE = {"temperature": 1, "seed": 7}  # the engine refuses several answers of greedy sampling
USAGE = {"stream": True, "stream_options": {"include_usage": True}}

COMPLETIONS: dict[str, dict[str, Any]] = {
    "a prompt": {"prompt": FOX},
    "one in a list": {"prompt": [FOX]},
    "two": {"prompt": THREE[:2]},
    "three": {"prompt": THREE},
    "one twice": {"prompt": [FOX, FOX]},
    "token ids": {"prompt": IDS[0]},
    "token ids in a list": {"prompt": [IDS[0]]},
    "several lists of token ids": {"prompt": IDS},
    "three streamed": {"prompt": THREE, **USAGE},
    "token ids streamed": {"prompt": IDS, **USAGE},
    "streamed": {"prompt": FOX, "stream": True},
    "streamed with usage": {"prompt": FOX, **USAGE},
    "two answers": {"prompt": FOX, "n": 2, **DICE},
    "two answers each": {"prompt": THREE, "n": 2, **DICE},
    "two answers streamed": {"prompt": FOX, "n": 2, **DICE, **USAGE},
    "a seed": {"prompt": FOX, **DICE},
    "echo": {"prompt": FOX, "echo": True},
    "echo of three": {"prompt": THREE, "echo": True},
    "echo and nothing else": {"prompt": FOX, "echo": True, "max_tokens": 0},
    "echo with logprobs": {"prompt": FOX, "echo": True, "logprobs": 2},
    "echo with logprobs alone": {"prompt": FOX, "echo": True, "logprobs": 1, "max_tokens": 0},
    "echo streamed": {"prompt": FOX, "echo": True, **USAGE},
    "logprobs": {"prompt": FOX, "logprobs": 3},
    "logprobs of nothing but the token": {"prompt": FOX, "logprobs": 0},
    "logprobs of three": {"prompt": THREE, "logprobs": 2},
    "logprobs of the prompt": {"prompt": FOX, "prompt_logprobs": 1},
    "stop": {"prompt": FOX, "stop": ["e", "a"], "max_tokens": 40},
    "stop of three": {"prompt": THREE, "stop": "e", "max_tokens": 40},
    "stop at token ids": {"prompt": FOX, "stop_token_ids": list(range(0, 300, 2))},
    "at least": {"prompt": FOX, "min_tokens": 10, "max_tokens": 12},
    "one token": {"prompt": FOX, "max_tokens": 1},
    "no limit named": {"prompt": FOX, "max_tokens": None, "stop": ["e"]},
    "a bias": {"prompt": FOX, "logit_bias": {"42": 100}},
    "penalties": {"prompt": FOX, "presence_penalty": 1.5, "repetition_penalty": 1.3},
    "token ids of the answer": {"prompt": FOX, "return_token_ids": True},
    "a form": {"prompt": FOX, "response_format": JSON_SCHEMA, "max_tokens": 30},
    "long": {"prompt": "word " * 1500},
    "an empty prompt": {"prompt": ""},
    "no prompts": {"prompt": []},
    "an empty one of two": {"prompt": [FOX, ""]},
    "no prompt": {},
    "a prompt that is null": {"prompt": None},
    "too long": {"prompt": "word " * 9000},
    "too long, one of two": {"prompt": [FOX, "word " * 9000]},
    "an unknown model": {"prompt": FOX, "model": "nobody's"},
    "unknown members": {"prompt": FOX, "nobody": {"knows": ["this"]}},
    "a wrong limit": {"prompt": FOX, "max_tokens": -1},
    "a wrong n": {"prompt": FOX, "n": 0},
    "kv_transfer_params": {"prompt": FOX, "kv_transfer_params": EVIL},
    "kv_transfer_params and three": {"prompt": THREE, "kv_transfer_params": EVIL},
    "several answers of beam search": {"prompt": FOX, "use_beam_search": True, "n": 2},
}
SAY = [{"role": "user", "content": FOX}]
CHATS: dict[str, dict[str, Any]] = {
    "a message": {"messages": SAY},
    "a conversation": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            *SAY,
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": '再说一遍 " \\ {"prompt": [1]}'},
        ]
    },
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": FOX}]}]},
    "streamed": {"messages": SAY, **USAGE},
    "two answers": {"messages": SAY, "n": 2, **DICE},
    "two answers streamed": {"messages": SAY, "n": 2, **DICE, **USAGE},
    "logprobs": {"messages": SAY, "logprobs": True, "top_logprobs": 2},
    "logprobs of the prompt": {"messages": SAY, "prompt_logprobs": 1},
    "echo": {"messages": SAY, "echo": True},
    "stop": {"messages": SAY, "stop": ["e"], "max_tokens": 40},
    "both limits": {"messages": SAY, "max_completion_tokens": 5, "max_tokens": 9},
    "a form": {"messages": SAY, "response_format": JSON_SCHEMA, "max_tokens": 30},
    "JSON": {"messages": SAY, "response_format": {"type": "json_object"}},
    "tools": {"messages": SAY, "tools": [WEATHER], "tool_choice": "none"},
    "a tool that must be used": {
        "messages": SAY,
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "max_tokens": 40,
    },
    "some tool must be used": {
        "messages": SAY,
        "tools": [WEATHER],
        "tool_choice": "required",
        "max_tokens": 60,
    },
    "no messages": {"messages": []},
    "a role that is none": {"messages": [{"role": "nobody", "content": 1}]},
    "an unknown model": {"messages": SAY, "model": "nobody's"},
    "kv_transfer_params": {"messages": SAY, "kv_transfer_params": EVIL},
}
SHAPES = [
    *(("/v1/completions", name, body) for name, body in COMPLETIONS.items()),
    *(("/v1/chat/completions", name, body) for name, body in CHATS.items()),
]


options: list[list[str]] = []  # of the deployments, once the certificate is made
SERVICES = {ALONE: Service(ALONE)}  # and the proxy, once its certificate is made


def script(name: str, environment: str, words: list[str]) -> None:
    argv = [sys.executable, f"scripts/{name}", "-e", environment, *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr and INTERNAL not in done.stdout + done.stderr


def secured(folder: Path) -> list[str]:
    """Options that close the proxy and its servers."""
    tls = Authority(folder).make()
    SERVICES[PROXY] = Service(PROXY, KEY, tls["ca"])
    files = {"api_keys": f"toolkit: {KEY}\n", "internal_key": f"{INTERNAL}\n"}
    for name, text in files.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)
    set_ = {f"proxy.{name}": f"{{file: {folder / name}}}" for name in files}
    set_.update({f"proxy.tls.{name}": path for name, path in tls.items()})
    return [word for name, value in set_.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module", autouse=True)
def deployed(engine_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Both deployments run; nothing is left after."""
    options[:] = secured(tmp_path_factory.mktemp("secrets")), []
    try:
        for environment, words in zip(ENVIRONMENTS, options):
            script("deploy.py", environment, words)
        yield
    finally:
        for environment, words in zip(ENVIRONMENTS, options):
            script("stop.py", environment, words)


def plain(data: Any) -> Any:
    """An answer without what is another each time; numbers as exactly as float32 computes them."""
    if isinstance(data, dict):
        left_out = ("id", "created", "system_fingerprint", "kv_transfer_params", "metrics")
        return {key: plain(value) for key, value in data.items() if key not in left_out}
    if isinstance(data, list):
        return [plain(one) for one in data]
    return round(data, 2) if isinstance(data, float) else data


def joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """A stream as one answer: how it is cut into chunks is of no importance."""
    found: dict[str, Any] = {"usage": None}
    for chunk in chunks:
        found["usage"] = plain(chunk.get("usage")) or found["usage"]
        for choice in chunk["choices"]:
            one = found.setdefault(choice["index"], {"text": "", "finish_reason": None})
            one["text"] += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            one["finish_reason"] = choice["finish_reason"] or one["finish_reason"]
    return found


def asked(base: str, path: str, body: dict[str, Any]) -> Any:
    whole = {"model": "tiny", "max_tokens": 8, "temperature": 0, **body}
    if whole.get("stream"):
        return joined(
            [
                json.loads(text)
                for text in SERVICES[base].events(path, whole, timeout_s=120)
                if text != "[DONE]"
            ]
        )
    answer = SERVICES[base].request(path, timeout_s=120, body=whole)
    assert answer.status not in (0, 502, 504), answer.text
    return answer.status, plain(answer.json())


@pytest.mark.parametrize(("path", "name", "body"), SHAPES, ids=lambda one: str(one)[:40])
def test_a_shape_is_answered_as_by_one_server(path: str, name: str, body: dict[str, Any]) -> None:
    right = asked(ALONE, path, body)
    assert asked(PROXY, path, body) == right


def test_nothing_differs_where_the_proxy_reads_along(start: Any) -> None:
    """For vllm-ascend it asks for tokens besides, and looks for answers that decode gave up."""
    alone = ("127.0.0.1", 21800)
    running = start([alone], [alone], kv_params="mooncake")
    SERVICES[running.url] = Service(running.url)
    for path, name, body in SHAPES:
        assert asked(running.url, path, body) == asked(ALONE, path, body), name


def gated(number: int, *more: str) -> Any:
    """Plan and settings of one of the deployments, for the truth gate."""
    told = [word for word in options[number] if word != "--set"]
    loaded = config.load(str(ROOT / ENVIRONMENTS[number]), assignments=[*told, *more])
    return make_plan(loaded), loaded.settings


def wrong(verdict: truth.Verdict) -> dict[str, str]:
    return {one.name: one.found for one in verdict.checks if not one.passed}


def test_every_pair_answers_as_the_co_located_server(tmp_path: Path) -> None:
    """By the truth gate, whose measure here is a server that is no part of the deployment."""
    file = tmp_path / "right.json"
    script("verify_serving.py", ENVIRONMENTS[1], [*options[1], "--record", str(file)])
    script("verify_serving.py", ENVIRONMENTS[0], [*options[0], "--reference", str(file)])


def test_the_truth_gate_raises_no_false_alarm() -> None:
    plan, settings = gated(0)
    for number in range(20):
        assert [one for one in alike.checks(plan, settings) if not one.passed] == []
        verdict = truth.run(plan, settings, short=number > 1)
        assert verdict.passed and len(verdict.checks) == 9, (number, wrong(verdict))
    names = {one.name: one.found for one in alike.checks(plan, settings)}
    assert set(names) >= {
        *("weights", "tokenizer", "chat template", "engine's release", "settings"),
        *("tokens of a text", "tokens of a chat", "block size of the KV cache"),
    }
    assert names["engine's release"].startswith("0.32.0") and "on 4 servers" in names["settings"]


def test_kv_of_another_prompt_is_found_and_named(backend: Any) -> None:
    """A real server's KV, but of a prompt of another request that is as long."""
    between, real = backend("prefill"), Service(SERVERS[0], INTERNAL)

    def behave(handler: Any, seen: Any) -> None:
        answers = []
        for mixed in (False, True):
            body = dict(seen.data)
            if mixed and "prompt" in body:
                body["prompt"] = body["prompt"][::-1]
            answers.append(real.request(seen.path, timeout_s=120, body=body).json())
        answers[0]["kv_transfer_params"] = answers[1]["kv_transfer_params"]
        handler.answer(200, json.dumps(answers[0]))

    between.behave = behave
    port = between.address[1]
    parts = f"[{{hosts: [local], api_port: {port}}}, {{hosts: [local], api_port: 21001}}]"
    plan, settings = gated(0, f"topology.prefill={parts}", "ports.ephemeral_low=65536")
    verdict = truth.run(plan, settings)
    assert set(wrong(verdict)) == {"p0 > d0", "p0 > d1"}
    assert verdict.causes[0].startswith("p0 hands over other KV than it computed")


GO_ON: list[tuple[str, dict[str, Any]]] = [
    (COMPLETION, {"prompt": FOX}),
    (COMPLETION, {"prompt": THREE[1], "repetition_penalty": 1.3, "min_tokens": 20}),
    (COMPLETION, {"prompt": IDS[0], "logit_bias": {"42": 5}}),
    (CHAT, CHATS["a conversation"]),
    (CHAT, {**CHATS["parts"], "max_completion_tokens": 40}),
]


@pytest.mark.parametrize("usage", [{}, USAGE])
@pytest.mark.parametrize("tokens", [(5,), (1, 1, 1), (3, 8, 2), (13, 20)])
def test_an_answer_that_decode_gave_up_is_the_same_in_the_end(
    start: Any, backend: Any, tokens: tuple[int, ...], usage: dict[str, Any]
) -> None:
    decode = backend("decode")
    running = start([backend("prefill", hand_over="null")], [decode], kv_params="mooncake")
    SERVICES[running.url] = Service(running.url)
    for path, more in GO_ON:
        body = {"max_tokens": 40, **more, **usage}
        decode.behave, before = Cut(21800, *tokens), len(decode.seen)
        got, right = asked(running.url, path, body), asked(ALONE, path, body)
        if usage:
            assert got == right
        else:
            assert compared(got) == compared(right)
        assert len(decode.seen) - before == len(tokens) + 1


def compared(answer: tuple[int, dict[str, Any]]) -> Any:
    """What a client reads of an answer: members that say nothing may be left out."""
    choice = answer[1]["choices"][0]
    said = choice.get("message", {}).get("content") or choice.get("text")
    return answer[0], said, choice["finish_reason"], answer[1]["usage"]


def by_openai(base: str, ask: Callable[[openai.OpenAI], Any]) -> Any:
    """What the official client makes of it; its errors are answers as well."""
    service = SERVICES[base]
    verify = ssl.create_default_context(cafile=service.ca)
    with openai.OpenAI(
        base_url=f"{base}/v1",
        api_key=service.key or "none",
        max_retries=0,
        timeout=120,
        http_client=httpx.Client(verify=verify),
    ) as client:
        try:
            found = ask(client)
        except openai.APIStatusError as error:
            return error.status_code, type(error).__name__
        if isinstance(found, openai.Stream):
            return joined([chunk.model_dump() for chunk in found])
        return plain(found.model_dump())


GREEDY: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_tokens": 8}
OPENAI: dict[str, Callable[[openai.OpenAI], Any]] = {
    "several prompts": lambda c: c.completions.create(prompt=THREE, **GREEDY),
    "several lists of ids": lambda c: c.completions.create(prompt=IDS, **GREEDY),
    "n": lambda c: c.completions.create(prompt=FOX, n=3, **{**GREEDY, **DICE}),
    "a stream": lambda c: c.completions.create(prompt=THREE, stream=True, **GREEDY),
    "a chat": lambda c: c.chat.completions.create(messages=SAY, **GREEDY),
    "a streamed chat": lambda c: c.chat.completions.create(messages=SAY, stream=True, **GREEDY),
    "hand-over": lambda c: c.completions.create(
        prompt=FOX, extra_body={"kv_transfer_params": EVIL}, **GREEDY
    ),
    "an unknown model": lambda c: c.completions.create(prompt=FOX, **{**GREEDY, "model": "x"}),
    "nothing": lambda c: c.completions.create(prompt="", **GREEDY),
}


@pytest.mark.parametrize("name", OPENAI)
def test_the_official_client_sees_no_difference(name: str) -> None:
    right = by_openai(ALONE, OPENAI[name])
    assert by_openai(PROXY, OPENAI[name]) == right


def test_both_decode_instances_took_part_and_got_their_kv() -> None:
    """Two at once, so that each has one: what was asked above is right whoever answered."""
    with futures.ThreadPoolExecutor(8) as pool:
        body = {"prompt": FOX, "max_tokens": 64}
        found = list(pool.map(lambda _: asked(PROXY, "/v1/completions", body), range(8)))
    assert all(one == found[0] for one in found)
    for url in SERVERS[2:]:
        text = Service(url, INTERNAL).request("/metrics", timeout_s=60).text
        [line] = [
            x for x in text.splitlines() if "tokens_by_source_total{" in x and "external" in x
        ]
        assert float(line.rpartition(" ")[2]) > 0, url


def test_the_servers_answer_nobody_but_the_proxy() -> None:
    """On no path that they have, but that they live; and on no address but the planned one."""
    server = Service("http://127.0.0.1:21000", INTERNAL)
    paths = server.request("/openapi.json", timeout_s=60).json()["paths"]
    assert {"/v1/completions", "/invocations", "/metrics", "/tokenize"} <= set(paths)
    for url in SERVERS:
        for path in paths:
            for key in ("", KEY):
                for method in ("GET", "POST"):
                    answer = Service(url, key).request(path, timeout_s=60, method=method)
                    assert (answer.status == 401) == (path != "/health"), (path, answer)
        assert Service(url, INTERNAL).request("/v1/models", timeout_s=60).status == 200
        elsewhere = url.replace("127.0.0.1", "127.0.0.2")
        assert Service(elsewhere, INTERNAL).request("/health", timeout_s=60).status == 0


def test_the_engine_s_load_generator_gets_in(tmp_path: Path) -> None:
    """Through the proxy, and at one server; no key is in anything that it leaves."""
    words = ["--concurrency", "2", "--requests", "4", "--out", str(tmp_path)]
    for where in ([], ["--instance", "d0"]):
        script("benchmark_serving.py", ENVIRONMENTS[0], [*options[0], *words, *where])
    for path in tmp_path.rglob("*.*"):
        assert KEY.encode() not in path.read_bytes() and INTERNAL.encode() not in path.read_bytes()


def test_several_prompts_are_really_different() -> None:
    """Otherwise equal answers would prove nothing."""
    _, right = asked(ALONE, "/v1/completions", {"prompt": THREE})
    assert len({choice["text"] for choice in right["choices"]}) == len(THREE)


def test_the_engine_s_reader_takes_the_last_of_equal_members() -> None:
    """What the proxy goes by when a request has a member twice."""
    last = b'{"model":"tiny","max_tokens":3,"max_tokens":5,"prompt":["a","b"],"prompt":"c"}'
    import http.client

    client = http.client.HTTPConnection("127.0.0.1", 21800, timeout=60)
    client.request("POST", "/v1/completions", last, {"Content-Type": "application/json"})
    found = json.loads(client.getresponse().read())
    client.close()
    assert len(found["choices"]) == 1 and found["usage"]["completion_tokens"] == 5


def test_faults_under_load_cost_no_answer_and_make_none_wrong(tmp_path: Path) -> None:
    # The short form of benchmarks/bench_steady.py; a stream that has begun may end with an error.
    folder = ROOT / "build" / "test-shapes"
    service = SERVICES[PROXY]
    site = pd_faults.Site(ENVIRONMENTS[0], folder, options[0], PROXY, KEY, service.ca)
    shapes = steady_load.shapes()
    right = pd_faults.right_answers(ALONE, tmp_path, shapes)
    found = pd_faults.run(site, tmp_path, right, shapes, pd_faults.SHORT, 0, 3.0, 1, print)
    told = "\n".join([*found.table(), *found.odd, *found.mixed])
    assert set(found.verdicts) <= set(pd_faults.ALLOWED) and not found.mixed, told
    assert found.verdicts[steady_load.RIGHT] > 0.9 * found.requests, told
