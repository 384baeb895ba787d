"""Real requests that show whether a deployment serves, and whether KV is really handed over."""

from __future__ import annotations

import http.client
import json
from dataclasses import asdict, dataclass
from typing import Any, Optional

from hostkit.base.health import metric
from omnikit.access import targets
from omnikit.config.schema import Settings
from omnikit.plan.types import Plan


@dataclass(frozen=True)
class Check:
    """One check: what was found, and whether that is right."""

    name: str
    passed: bool
    found: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON output."""
        return asdict(self)


def completion_body(plan: Plan, settings: Settings) -> dict[str, Any]:
    """The request of the smoke test: greedy, so that equal servers give equal text."""
    return {
        "model": plan.served_name,
        "prompt": settings.smoke_test.prompt,
        "max_tokens": settings.smoke_test.max_tokens,
        "temperature": 0,
    }


def curl_line(plan: Plan, settings: Settings) -> str:
    """The same request, to paste into a shell."""
    import shlex

    body = json.dumps(completion_body(plan, settings), ensure_ascii=False)
    asked = targets.entry(plan, settings)
    return (
        f"curl -s {asked.url}/v1/completions -H 'Content-Type: application/json'"
        + (' -H "Authorization: Bearer $OPENAI_API_KEY"' if asked.key else "")
        + (f" --cacert {shlex.quote(asked.ca)}" if asked.ca else "")
        + f" -d {shlex.quote(body)}"
    )


def one_completion(plan: Plan, settings: Settings) -> Check:
    """A completion through the entry; judged by its text, not by its status."""
    answer = targets.entry(plan, settings).request(
        "/v1/completions",
        timeout_s=settings.smoke_test.timeout_s,
        body=completion_body(plan, settings),
    )
    text = _first(answer.json(), "text")
    if answer.status == 200 and text:
        return Check("completion", True, repr(text))
    return Check("completion", False, f"status {answer.status}: {answer.text[:300]}")


def _first(data: Any, *keys: str) -> str:
    """A text below the first choice of an answer, or nothing."""
    try:
        found = data["choices"][0]
        for key in keys:
            found = found[key]
    except (KeyError, IndexError, TypeError):
        return ""
    return found if isinstance(found, str) else ""


def run(plan: Plan, settings: Settings) -> list[Check]:
    """All checks of a deployment, in order; stops after a failed completion."""
    checks = [_models(plan, settings), *_completion_with_kv(plan, settings)]
    if all(check.passed for check in checks):
        checks += [_chat(plan, settings), _stream(plan, settings), *_several(plan, settings)]
    return checks


def _models(plan: Plan, settings: Settings) -> Check:
    entry = targets.entry(plan, settings)
    answer = entry.request("/v1/models", timeout_s=settings.smoke_test.timeout_s)
    names = [one.get("id") for one in answer.listed("data")] if answer.status == 200 else []
    found = ", ".join(map(str, names)) or f"status {answer.status}: {answer.text[:200]}"
    return Check("models", plan.served_name in names, found)


def _chat(plan: Plan, settings: Settings) -> Check:
    body = completion_body(plan, settings)
    body["messages"] = [{"role": "user", "content": body.pop("prompt")}]
    answer = targets.entry(plan, settings).request(
        "/v1/chat/completions", timeout_s=settings.smoke_test.timeout_s, body=body
    )
    text = _first(answer.json(), "message", "content")
    found = repr(text) if text else f"status {answer.status}: {answer.text[:300]}"
    return Check("chat completion", answer.status == 200 and bool(text), found)


def _stream(plan: Plan, settings: Settings) -> Check:
    body = {**completion_body(plan, settings), "stream": True}
    body["stream_options"] = {"include_usage": True}
    text, usage, chunks = "", None, 0
    try:
        for data in targets.entry(plan, settings).events(
            "/v1/completions", body, timeout_s=settings.smoke_test.timeout_s
        ):
            if data == "[DONE]":
                break
            chunk = json.loads(data)
            if not isinstance(chunk, dict):
                raise ValueError(f"an event that is no object: {data[:300]}")
            chunks += 1
            text += _first(chunk, "text")
            usage = chunk.get("usage") or usage
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Check("streamed completion", False, f"{type(error).__name__}: {error}")
    tokens = (usage or {}).get("completion_tokens")
    found = f"{chunks} chunks, {tokens} tokens: {text!r}"
    return Check("streamed completion", bool(text) and bool(tokens) and chunks > 1, found)


def _several(plan: Plan, settings: Settings) -> list[Check]:
    """Two prompts in one request, each answered as alone.

    Only the first token: servers may compute a batch with other roundings.
    """
    timeout_s = settings.smoke_test.timeout_s
    entry = targets.entry(plan, settings)
    if plan.disaggregated and not targets.takes_several(entry, timeout_s):
        return []
    one = {**completion_body(plan, settings), "max_tokens": 1}
    prompts = [one["prompt"], one["prompt"][::-1]]
    path = "/v1/completions"
    alone = [entry.request(path, timeout_s=timeout_s, body={**one, "prompt": p}) for p in prompts]
    answer = entry.request(path, timeout_s=timeout_s, body={**one, "prompt": prompts})
    choices = answer.listed("choices") if answer.status == 200 else []
    texts = [_first({"choices": [choice]}, "text") for choice in choices]
    expected = [_first(each.json(), "text") for each in alone]
    found = f"{texts}" if choices else f"status {answer.status}: {answer.text[:300]}"
    if texts != expected:
        found += f", alone {expected}"
    return [Check("several prompts", bool(choices) and texts == expected, found)]


def _completion_with_kv(plan: Plan, settings: Settings) -> list[Check]:
    """A completion, and what the decode servers' metrics counted for it meanwhile.

    Other clients' requests may fall into the measurement: then it is taken again.
    """
    if not plan.disaggregated or settings.metrics.kv_transferred is None:
        return [one_completion(plan, settings)]
    first: Optional[Check] = None
    kv = Check("KV hand-over", False, "not measured")
    for _ in range(settings.smoke_test.attempts):
        before = kv_counters(plan, settings)
        answer = targets.entry(plan, settings).request(
            "/v1/completions",
            timeout_s=settings.smoke_test.timeout_s,
            body=completion_body(plan, settings),
        )
        text = _first(answer.json(), "text")
        usage = answer.json().get("usage")
        prompt_tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if answer.status != 200 or not text or not isinstance(prompt_tokens, int):
            return [Check("completion", False, f"status {answer.status}: {answer.text[:300]}")]
        first = first or Check("completion", True, repr(text))
        after = kv_counters(plan, settings)
        kv = judge_kv(before, after, prompt_tokens)
        if kv.passed and before and after and before[1] == after[1]:
            break
    return [first, kv] if first else [kv]


def kv_counters(plan: Plan, settings: Settings) -> Optional[tuple[float, float]]:
    """Prompt tokens that all decode servers loaded and recomputed so far; None: unreadable."""
    transferred = recomputed = 0.0
    decode = [node for node in plan.nodes if node.role == "decode"]
    for server in targets.servers(decode, settings).values():
        answer = server.request("/metrics", timeout_s=settings.smoke_test.timeout_s)
        if answer.status != 200:
            return None
        transferred += metric(answer.text, settings.metrics.kv_transferred) or 0.0
        recomputed += metric(answer.text, settings.metrics.kv_recomputed) or 0.0
    return transferred, recomputed


def judge_kv(
    before: Optional[tuple[float, float]],
    after: Optional[tuple[float, float]],
    prompt_tokens: int,
) -> Check:
    """Whether the prompt's tokens arrived as transferred KV, all of them.

    Where other requests are served meanwhile, theirs count as well: of several prompts or answers
    none is handed over, so that what was computed again may all be theirs. That something arrives
    is all that can be seen then; the truth gate hands KV over between each pair itself.
    """
    if before is None or after is None:
        return Check("KV hand-over", False, "the decode servers' /metrics cannot be read")
    moved = int(after[0] - before[0])
    again = int(after[1] - before[1])
    found = f"{moved} of {prompt_tokens} prompt tokens transferred, {again} recomputed"
    others = moved > prompt_tokens
    if others:
        found += " (with those of other requests)"
    passed = moved >= prompt_tokens and (again == 0 or others)
    return Check("KV hand-over", passed, found)
