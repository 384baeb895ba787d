"""Requests at a steady rate, from a process of its own, and what became of each.

As a program: python steady_load.py TASK OUT. TASK is a JSON file {url, key, ca, rate, shapes:
[[path, body], …], requests: [number of a shape, …]}; OUT gets a line for each request as it ends.
The rate is kept whatever the answers do (an open loop), nothing is asked twice, connections are
kept and used again as clients do. Ends when all have ended; SIGTERM: no more are begun.
"""

from __future__ import annotations

import asyncio
import collections
import json
import random
import signal
import ssl
import sys
import time
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Optional, Sequence, TextIO

import httpx

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
WAIT_S = 120.0  # for the next byte: longer than all that is promised
WORDS = (
    "load",
    "server",
    "prefill",
    "decode",
    "block",
    "cache",
    "token",
    "proxy",
    "queue",
    "batch",
)


class Shape(NamedTuple):
    """A request that has one right answer."""

    path: str
    body: dict[str, Any]


def shapes(count: int = 60, seed: int = 11) -> list[Shape]:
    """Requests of many kinds, half of them streams; all prompts differ from their first word on."""
    made, chance = [], random.Random(seed)
    for number in range(count):
        words = [chance.choice(WORDS) for _ in range(chance.choice((3, 12, 60, 150, 400)))]
        text = f"{number} " + " ".join(words)
        body: dict[str, Any] = {"max_tokens": chance.choice((4, 12, 24, 48)), "temperature": 0}
        kind = number // 2 % 5
        if kind == 1:
            body["messages"] = [{"role": "user", "content": text}]
        elif kind == 3:  # two prompts, which decode computes alone
            body["prompt"] = [text, " ".join(reversed(words[:60]))]
        else:
            body["prompt"] = text
        if number % 2:
            body["stream"] = True
        made.append(Shape(CHAT if kind == 1 else COMPLETIONS, {"model": "tiny", **body}))
    return made


def said(stream: bool, text: str) -> Optional[dict[str, str]]:
    """The texts of an answer by choice, with why each ended; of a stream as far as it came."""
    if stream:
        events = [line[6:] for line in text.split("\n") if line.startswith("data: {")]
        answers = [one for one in map(json.loads, events) if "choices" in one]
    else:
        answers = [json.loads(text)]
    found: dict[str, str] = {}
    for answer in answers:
        for one in answer["choices"]:
            part = one.get("message") or one.get("delta") or {}
            more = one.get("text") or part.get("content") or ""
            name = str(one["index"])
            found[name] = found.get(name, "") + more
            if one.get("finish_reason"):
                found[f"{name} ended"] = one["finish_reason"]
    return found


# What may become of a request. A stream that had begun and whose server was lost may end with an
# error; nothing else but the right answer is as promised.
RIGHT, WRONG, LOST, ENDED, CUT = "right", "wrong", "lost", "ended by an error", "cut"


def verdict(record: Mapping[str, Any], right: Mapping[str, str]) -> str:
    """What became of a request, held against the right answer.

    >>> whole = {"stream": False, "status": 200, "error": "", "text": ""}
    >>> verdict({**whole, "text": '{"choices": [{"index": 0, "text": "a"}]}'}, {"0": "a"})
    'right'
    >>> begun = 'data: {"choices": [{"index": 0, "text": "a"}]}\\n\\n'
    >>> verdict({**whole, "stream": True, "text": begun}, {"0": "ab"})
    'cut'
    >>> verdict({**whole, "stream": True, "text": begun + 'data: {"error": {}}\\n\\n'}, {"0": "ab"})
    'ended by an error'
    >>> verdict({**whole, "status": 502}, {"0": "ab"})
    'lost'
    """
    stream, text = record["stream"], record["text"]
    begun = stream and text
    if record["status"] != 200 or (record["error"] and not begun):
        return LOST
    if record["error"]:
        return CUT
    try:
        found = said(stream, text) or {}
    except (ValueError, KeyError, TypeError):
        return WRONG
    if not stream:
        return RIGHT if found == right else WRONG
    events = [line for line in text.split("\n") if line.startswith("data: ")]
    if events and events[-1] == "data: [DONE]":
        return RIGHT if found == right else WRONG
    begins = all(right.get(name, "").startswith(part) for name, part in found.items())
    if not begins:
        return WRONG
    return ENDED if events and events[-1].startswith('data: {"error"') else CUT


async def ask(
    client: httpx.AsyncClient, number: int, shape: int, path: str, body: dict[str, Any], out: TextIO
) -> None:
    """One request; a line of it in out."""
    record: dict[str, Any] = {
        "number": number, "shape": shape, "stream": bool(body.get("stream")), "status": 0,
        "error": "", "id": "", "sent_at": time.time(), "first_at": None,
    }  # fmt: skip
    parts = []
    try:
        async with client.stream("POST", path, json=body) as answer:
            record["status"] = answer.status_code
            record["id"] = answer.headers.get("x-request-id", "")
            async for piece in answer.aiter_bytes():
                record["first_at"] = record["first_at"] or time.time()
                parts.append(piece)
    except (httpx.HTTPError, OSError, ssl.SSLError) as error:
        record["error"] = repr(error)
    record["ended_at"] = time.time()
    record["text"] = b"".join(parts).decode("utf-8", "replace")
    out.write(json.dumps(record) + "\n")
    out.flush()


async def load(task: Mapping[str, Any], out: TextIO) -> None:
    """All requests of a task, each at its time."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    headers = {"Authorization": f"Bearer {task['key']}"} if task.get("key") else {}
    verify = ssl.create_default_context(cafile=task["ca"]) if task.get("ca") else True
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
    timeout = httpx.Timeout(WAIT_S)
    async with httpx.AsyncClient(
        base_url=task["url"], headers=headers, verify=verify, limits=limits, timeout=timeout
    ) as client:
        begun, asked = time.monotonic(), set()
        for number, shape in enumerate(task["requests"]):
            path, body = task["shapes"][shape]
            wait = begun + number / task["rate"] - time.monotonic()
            try:
                await asyncio.wait_for(over.wait(), max(0.0, wait))
                break
            except asyncio.TimeoutError:
                pass
            one = asyncio.create_task(ask(client, number, shape, path, body, out))
            asked.add(one)
            one.add_done_callback(asked.discard)
        await asyncio.gather(*asked)


def records(path: Path) -> list[dict[str, Any]]:
    """What a load has written down so far, whole lines only."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def tally(found: Sequence[Mapping[str, Any]], right: Sequence[Mapping[str, str]]) -> dict[str, int]:
    """How many of each verdict."""
    return dict(collections.Counter(verdict(one, right[one["shape"]]) for one in found))


def main() -> None:
    """See above."""
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with Path(sys.argv[2]).open("w", encoding="utf-8") as out:
        asyncio.run(load(task, out))


if __name__ == "__main__":
    main()
