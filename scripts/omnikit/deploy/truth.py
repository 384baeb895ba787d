"""Whether a deployment answers as one server alone does: the truth gate.

KV of another prompt, or read in another layout, stops nothing: answers only get worse. So every
pair of a prefill and a decode server is asked for greedy answers, many at the same time, and these
are held against those of a server that has computed the whole prompt itself, or recorded ones. The
gate makes the hand-over itself, in the two steps of the proxy: whom the proxy pairs is its own
choice. Every request has a salt of its own (cache_salt), so that no server finds its prompt cached.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Optional, TypeVar, Union

from hostkit.access.service import Service
from hostkit.base.errors import InputError
from hostkit.base.values import whole
from hostkit.base.writing import write_atomically
from hostkit.files import regular
from omnikit.access import targets
from omnikit.config.schema import Settings
from omnikit.deploy import alike, smoke_test, status
from omnikit.deploy.smoke_test import Check
from omnikit.plan.arguments import flag
from omnikit.plan.types import Plan
from omnikit.proxy import lua

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
_TOP = 5  # log-probabilities of so many tokens beside the chosen one
_WORDS = (
    *("harbour", "seven", "bridge", "yellow", "winter", "copper"),
    *("letter", "garden", "silent", "market", "river", "stone"),
)
_STREAM = {"stream": True, "stream_options": {"include_usage": True}}
_SEVERAL = ("short", "a sentence", "Chinese")  # of one request
_BETWEEN = " | "  # their answers
_NO_KV = "handed no KV over"


Kind = TypeVar("Kind")


class Case(NamedTuple):
    """One request. several: it has several prompts; no pair is asked that, it has one hand-over."""

    name: str
    path: str
    body: Mapping[str, Any]
    several: bool = False


@dataclass(frozen=True)
class Token:
    """A token of an answer, its log-probability, and those of the likeliest in its place."""

    text: str
    log: float
    top: Mapping[str, float]


@dataclass(frozen=True)
class Answer:
    """What a server said. fault: why it said nothing that counts. tokens: where asked for."""

    text: str = ""
    prompt_tokens: Optional[int] = None
    tokens: tuple[Token, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class Handed:
    """The answer of a pair, with what prefill computed on its own: the first token."""

    first: Answer
    answer: Answer


@dataclass
class Found:
    """All answers by case: of servers alone, of pairs (prefill, decode), through the proxy."""

    alone: dict[str, dict[str, Answer]] = field(default_factory=dict)
    pairs: dict[tuple[str, str], dict[str, Handed]] = field(default_factory=dict)
    proxy: dict[str, Answer] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """checks: one for each pair and server. causes: what a person should think of."""

    checks: list[Check]
    causes: list[str]
    right: Mapping[str, Answer]

    @property
    def passed(self) -> bool:
        """Whether all is as it should be."""
        return all(check.passed for check in self.checks)


def cases(plan: Plan, settings: Settings) -> list[Case]:
    """All requests, each with a prompt of its own: an answer to another prompt shows."""
    told = [whole(flag(node, "max-model-len")) for node in plan.nodes if node.servers]
    limits = [*filter(None, [*told, settings.engine.max_transferable_prompt])]
    # Two words are about 12 bytes, of which some tokenizers make as many tokens.
    pairs = min(settings.verify_serving.long_words // 2, *(limit // 16 for limit in limits), 10**6)
    words = [f"{_WORDS[n * n % 12]} {n}" for n in range(pairs)]
    long, other = " ".join(words), " ".join(reversed(words))
    system = {"role": "system", "content": "Answer in one sentence."}
    prompts = {
        "short": "The capital of France is",
        "long": f"Read this list. {long}. It goes on:",
        "a sentence": "Water that is heated to one hundred degrees begins to",
        "Chinese": "第一台服务器负责预填充，第二台服务器负责",
        "long, reversed": f"Now backwards: {other}. Then:",
    }
    made = [Case(name, COMPLETIONS, {"prompt": text}) for name, text in prompts.items()]
    ask = [system, {"role": "user", "content": "Why is the sky blue?"}]
    more = [system, {"role": "user", "content": f"Which of these is a number? {other}"}]
    made += [
        Case("chat", CHAT, {"messages": ask}),
        Case("stream", COMPLETIONS, {"prompt": f"{long}. Again:", **_STREAM}),
        Case("streamed chat", CHAT, {"messages": more, **_STREAM}),
        Case("several prompts", COMPLETIONS, {"prompt": [prompts[n] for n in _SEVERAL]}, True),
    ]
    return made


def run(
    plan: Plan,
    settings: Settings,
    *,
    short: bool = False,
    reference: Optional[Mapping[str, Answer]] = None,
) -> Verdict:
    """Ask and judge. short: two requests for each pair. reference: the right answers (read())."""
    gate = _Gate(plan, settings, short)
    found = gate.ask()
    right = dict(reference) if reference is not None else _right(found)
    right.update(_together(right))
    gate.ask_alone(found, right)
    return judge(found, right, settings.verify_serving.tolerance, recorded=reference is not None)


def gate(plan: Plan, settings: Settings) -> list[Check]:
    """What proves a deployment: real requests, servers that are alike, right answers. In brief."""
    found = smoke_test.run(plan, settings)
    if plan.proxy and all(one.passed for one in found):
        found.append(status.in_pool(plan, settings))
    asked = settings.verify_serving.on_change
    if asked == "none" or not all(one.passed for one in found):
        return found
    found += _brief("servers alike", alike.checks(plan, settings))
    if asked == "alike":
        return found
    verdict = run(plan, settings, short=asked == "short")
    found += _brief("answers", verdict.checks)
    return found + [Check("likely cause", False, cause) for cause in verdict.causes]


def _brief(name: str, checks: list[Check]) -> list[Check]:
    """Those that failed; one line where none did."""
    wrong = [check for check in checks if not check.passed]
    if wrong or not checks:
        return wrong
    return [Check(name, True, ", ".join(check.name for check in checks))]


class _Gate:
    """Who is asked, and how."""

    def __init__(self, plan: Plan, settings: Settings, short: bool) -> None:
        self.plan, self.settings, self.short = plan, settings, short
        self.given = settings.verify_serving
        self.entry = targets.entry(plan, settings)
        self.services = targets.servers(plan.nodes, settings)
        self.prefill = self._pool("prefill")
        self.decode = self._pool("decode") or self._pool("colocated")
        self.cases = cases(plan, settings)
        self.silent: set[str] = set()  # servers that did not answer are not waited for again
        self.salt = secrets.token_hex(8)

    def _pool(self, role: str) -> list[str]:
        """Servers that the proxy sends requests to."""
        proxy = self.plan.proxy
        known = (*proxy.prefill, *proxy.decode) if proxy else ()
        return [
            server.name
            for node in self.plan.nodes
            if node.role == role
            for server in node.servers
            if proxy is None or (node.address, server.api_port) in known
        ]

    def ask(self) -> Found:
        """Everything at once: pairs, servers alone, the proxy."""
        pairs = [(p, d) for d in self.decode for p in self.prefill]
        if self.settings.proxy.kv_params == lua.PUSHED:
            pairs = []  # decode's engine calls the proxy for it: nobody else can choose the pair
        single = [case for case in self.cases if not case.several]
        each = 2 if self.short else max(1, self.given.requests // max(1, len(pairs)))
        shares = {
            pair: list(islice(_from(single, number * each), min(each, len(single))))
            for number, pair in enumerate(pairs)
        }
        if self.short and not pairs and not self.plan.proxy and len(self.decode) < 2:
            return Found()  # one server, and nobody to compare it with
        used = {case.name for share in shares.values() for case in share}
        if not pairs:
            used = {case.name for case in (single[:2] if self.short else single)}
        chosen = [case for case in single if case.name in used]
        through = chosen[:2] if self.short else chosen
        if {*_SEVERAL} <= {case.name for case in through} and self._takes_several():
            through = [*through, *(case for case in self.cases if case.several)]
        found = Found()
        alone = self._who_is_right()
        with ThreadPoolExecutor(max_workers=self._at_once()) as pool:
            told: list[tuple[dict[Any, Any], str, Future[Any]]] = []
            for case in self.cases:
                for name in alone if case in chosen else ():
                    own = found.alone.setdefault(name, {})
                    told.append((own, case.name, pool.submit(self._alone, name, case)))
                for pair, share in shares.items():
                    if case in share:
                        both = found.pairs.setdefault(pair, {})
                        told.append((both, case.name, pool.submit(self._pair, *pair, case)))
                if case in through and self.plan.proxy:
                    told.append((found.proxy, case.name, pool.submit(self._through, case)))
            for place, name, answer in told:
                place[name] = answer.result()
        return found

    def ask_alone(self, found: Found, right: Mapping[str, Answer]) -> None:
        """Ask decode servers alone whose pairs answered otherwise: is it them, or their KV?"""
        if not self.given.alone:
            return
        for (_, decode), answers in found.pairs.items():
            for case in self.cases:
                known = found.alone.setdefault(decode, {})
                handed = answers.get(case.name)
                wrong = handed and difference(
                    handed.answer, right.get(case.name), self.given.tolerance
                )
                if wrong and not known:
                    known[case.name] = self._alone(decode, case)

    def _at_once(self) -> int:
        return self.given.at_once * max(1, len(self.prefill) or len(self.decode))

    def _who_is_right(self) -> list[str]:
        """Servers that are asked without a hand-over: several, since one of them may be wrong."""
        return self.decode[: self.given.references] if self.given.alone or not self.prefill else []

    def _takes_several(self) -> bool:
        """Of several prompts in one request."""
        if self.plan.proxy is None or not self.prefill:
            return True
        return targets.takes_several(self.entry, self.given.timeout_s)

    def _body(self, case: Case) -> dict[str, Any]:
        body = {
            "model": self.plan.served_name,
            "max_tokens": self.given.answer_tokens,
            "temperature": 0,
            "ignore_eos": True,  # else prefill hands nothing over of an answer that ends at once
            "cache_salt": f"{self.salt}-{secrets.token_hex(4)}",
            **case.body,
        }
        if self.given.tolerance is not None:
            chat = case.path == CHAT
            body.update({"logprobs": True, "top_logprobs": _TOP} if chat else {"logprobs": _TOP})
        return body

    def _alone(self, name: str, case: Case) -> Answer:
        return self._said(name, self.services[name], case.path, self._body(case))[0]

    def _through(self, case: Case) -> Answer:
        return self._said("the proxy", self.entry, case.path, self._body(case))[0]

    def _pair(self, prefill: str, decode: str, case: Case) -> Handed:
        """The two steps of the proxy (templates/pd_proxy.lua.j2)."""
        body = self._body(case)
        drop = ("stream", "stream_options")
        first = {key: value for key, value in body.items() if key not in drop}
        first.update(max_tokens=1, min_tokens=1)
        asked = lua.KV_PARAMS[self.settings.proxy.kv_params]
        first.update({"kv_transfer_params": asked} if asked else {})
        # Some connectors know a prompt again by the request's name.
        named = {"X-Request-Id": f"verify-{secrets.token_hex(12)}"}
        begun, data = self._said(prefill, self.services[prefill], case.path, first, named)
        if begun.fault:
            return Handed(begun, begun)
        handed = data.get("kv_transfer_params")
        if not handed:
            return Handed(begun, Answer(fault=f"{prefill} {_NO_KV}"))
        body["kv_transfer_params"] = handed
        return Handed(begun, self._said(decode, self.services[decode], case.path, body, named)[0])

    def _said(
        self,
        name: str,
        service: Service,
        path: str,
        body: dict[str, Any],
        headers: Optional[Mapping[str, str]] = None,
    ) -> tuple[Answer, dict[str, Any]]:
        """A server's answer, and all of it as data."""
        if name in self.silent:
            return Answer(fault=f"{name} did not answer another request"), {}
        try:
            if body.get("stream"):
                data = _streamed(service, path, body, self.given.timeout_s, headers)
            else:
                got = service.request(
                    path, timeout_s=self.given.timeout_s, body=body, headers=headers
                )
                if got.status != 200:
                    raise ValueError(f"status {got.status}: {got.text[:200]}")
                data = got.json()
            return _read(data), data
        except (OSError, ValueError, http.client.HTTPException) as error:
            if not isinstance(error, ValueError) or str(error).startswith("status 0"):
                self.silent.add(name)
            return Answer(fault=f"{name}: {error}"), {}


def _from(single: list[Case], start: int) -> Iterable[Case]:
    """Cases in turn, so that pairs which get few of them get others than their neighbours."""
    while True:
        yield single[start % len(single)]
        start += 1


def _streamed(
    service: Service,
    path: str,
    body: Mapping[str, Any],
    timeout_s: float,
    headers: Optional[Mapping[str, str]],
) -> dict[str, Any]:
    """A stream put together as the answer that it is. Raises ValueError when it is not whole."""
    text, logs, usage, ended = "", [], None, False
    for event in service.events(path, body, timeout_s=timeout_s, headers=headers):
        if event == "[DONE]":
            ended = True
            break
        chunk = json.loads(event)
        try:
            if "error" in chunk:
                raise ValueError(f"the stream ended with an error: {str(chunk['error'])[:200]}")
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices", []):
                text += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
                logs.append(choice.get("logprobs"))
        except (AttributeError, TypeError) as error:
            raise ValueError(f"no part of an answer: {event[:200]}") from error
    if not ended:
        raise ValueError("the stream ended before it was whole")
    return {"choices": [{"text": text, "parts": logs}], "usage": usage}


def _read(data: Any) -> Answer:
    """The answer in an engine's data. Raises ValueError where it has none."""
    try:
        choices = sorted(data["choices"], key=lambda one: int(one.get("index", 0)))
        texts = [one["message"]["content"] if "message" in one else one["text"] for one in choices]
        tokens = [
            token
            for one in choices
            for part in one.get("parts", [one.get("logprobs")])
            for token in _tokens(part)
        ]
        count = (data.get("usage") or {}).get("prompt_tokens")
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"no answer: {str(data)[:200]}") from error
    if not texts:
        raise ValueError(f"no answer: {str(data)[:200]}")
    return Answer(_BETWEEN.join(text or "" for text in texts), count, tuple(tokens))


def _tokens(part: Any) -> Iterable[Token]:
    """Tokens of a member logprobs, in the two forms that completions and chats have."""
    if not part:
        return
    for one in part.get("content") or ():
        top = {other["token"]: float(other["logprob"]) for other in one["top_logprobs"]}
        yield Token(one["token"], float(one["logprob"]), top)
    if "tokens" in part:
        tops = part.get("top_logprobs") or [{}] * len(part["tokens"])
        for text, log, top in zip(part["tokens"], part["token_logprobs"], tops):
            yield Token(text, float(log), top or {})


def difference(found: Answer, right: Optional[Answer], tolerance: Optional[float]) -> str:
    """How an answer differs from the right one; "": it does not.

    tolerance: None: texts have to be the same. Else log-probabilities may differ by so much, and
    answers part without fault where two tokens are that near to each other.
    """
    if found.fault:
        return found.fault
    if right is None:
        return "no server gave an answer to compare it with"
    counts = (found.prompt_tokens, right.prompt_tokens)
    if None not in counts and counts[0] != counts[1]:
        return f"its prompt has {counts[0]} tokens instead of {counts[1]}"
    if tolerance is None or not (found.tokens and right.tokens):
        return "" if found.text == right.text else _parted(found.text, right.text)
    for number, (mine, other) in enumerate(zip(found.tokens, right.tokens), 1):
        if mine.text != other.text:
            gap = other.log - other.top.get(mine.text, float("-inf"))
            near = f"{gap:.3g} less likely" if gap < float("inf") else "not among the likeliest"
            return "" if gap <= tolerance else f"token {number} is {mine.text!r}, {near}"
        if abs(mine.log - other.log) > tolerance:
            return (
                f"token {number}, {mine.text!r}, has log-probability {mine.log:.4g} instead of"
                f" {other.log:.4g}"
            )
    return ""


def _parted(found: str, right: str) -> str:
    same = next((n for n, (a, b) in enumerate(zip(found, right)) if a != b), None)
    at = min(len(found), len(right)) if same is None else same
    return f"{found[at : at + 24]!r} instead of {right[at : at + 24]!r} from character {at}"


def _right(found: Found) -> dict[str, Answer]:
    """By case the answer that most servers stand for.

    Servers alone count, and prefill servers by their first tokens; where no server is asked alone,
    the answers of pairs.
    """
    made: dict[str, Answer] = {}
    names = {name for own in found.alone.values() for name in own}
    names |= {name for both in found.pairs.values() for name in both}
    for name in sorted(names):
        handed = {pair: own[name] for pair, own in found.pairs.items() if name in own}
        whole = [own[name] for own in found.alone.values() if name in own]
        whole = whole or [one.answer for one in handed.values()]
        # By text and number of the prompt's tokens: tokenizers may differ where answers do not.
        votes = Counter(_kind(one) for one in whole if not one.fault)
        for prefill in {pair[0] for pair in handed}:
            first = next(one.first for pair, one in handed.items() if pair[0] == prefill)
            for text, count in list(votes) if first.text and not first.fault else ():
                votes[text, count] += text.startswith(first.text) and count == first.prompt_tokens
        if votes:
            best = max(votes, key=lambda kind: votes[kind])
            made[name] = next(one for one in whole if not one.fault and _kind(one) == best)
    return made


def _together(right: Mapping[str, Answer]) -> dict[str, Answer]:
    """The answer to several prompts in one request: those to each."""
    each = [right[name] for name in _SEVERAL if name in right]
    if len(each) < len(_SEVERAL):
        return {}
    counts = [one.prompt_tokens for one in each]
    known = [count for count in counts if count is not None]
    tokens = tuple(token for one in each for token in one.tokens)
    text = _BETWEEN.join(one.text for one in each)
    return {"several prompts": Answer(text, sum(known) if known == counts else None, tokens)}


def _kind(answer: Answer) -> tuple[str, Optional[int]]:
    return answer.text, answer.prompt_tokens


def judge(
    found: Found,
    right: Mapping[str, Answer],
    tolerance: Optional[float],
    *,
    recorded: bool = False,
) -> Verdict:
    """A check for each server, each pair and the proxy, and what their pattern points to."""

    def check(
        name: str, answers: Iterable[tuple[str, Answer]], by: Callable[..., str] = difference
    ) -> Check:
        told = [(case, by(one, right.get(case), tolerance)) for case, one in answers]
        wrong = [f"; {case}: {why}" for case, why in told if why]
        said = f"{len(told) - len(wrong)} of {len(told)} right"
        return Check(name, not wrong, said + "".join(wrong[:1]))

    firsts: dict[str, list[tuple[str, Answer]]] = {}
    for (prefill, _), own in found.pairs.items():
        firsts.setdefault(prefill, []).extend((case, one.first) for case, one in own.items())
    single = {name: list(own.items()) for name, own in found.alone.items() if own}
    measure = "as recorded" if recorded else "alone"
    alone = {name: check(f"{name} {measure}", own) for name, own in sorted(single.items())}
    begun = {
        name: check(f"{name} first token", own, _first_differs) for name, own in firsts.items()
    }
    pairs = {
        pair: check(" > ".join(pair), ((case, one.answer) for case, one in own.items()))
        for pair, own in found.pairs.items()
    }
    checks = [*alone.values(), *begun.values(), *pairs.values()]
    if found.proxy:
        checks.append(check("proxy", found.proxy.items()))
    every = [
        (name, one) for both in (single, firsts) for name, own in both.items() for _, one in own
    ]
    mute = {name: one.fault for name, one in every if one.fault}
    bad = {name for name, one in alone.items() if not one.passed}
    causes = [f"no answer: {fault}" for _, fault in sorted(mute.items())]
    if recorded and bad and bad == {*alone}:
        causes.append("all servers answer otherwise than recorded: other weights, or another model")
    else:
        bad |= {name for name, one in begun.items() if not one.passed}
        wrong = [pair for pair, one in pairs.items() if not one.passed]
        causes += _causes(mute, bad - {*mute}, wrong, list(pairs), _handing_none(found))
    if found.proxy and not checks[-1].passed and not causes:
        causes = ["servers are right and the proxy is not: look at how it hands over (proxy.kind)"]
    return Verdict(checks, causes, right)


def _first_differs(found: Answer, right: Optional[Answer], tolerance: Optional[float]) -> str:
    """The same of an answer that has the first token alone."""
    if right is None or found.fault:
        return difference(found, right, tolerance)
    text = right.text[: len(found.text)]
    return difference(found, replace(right, text=text, tokens=right.tokens[:1]), tolerance)


Pair = tuple[str, str]


def _handing_none(found: Found) -> set[str]:
    """Prefill servers that handed no KV over."""
    told = (
        (pair[0], one.answer.fault) for pair, own in found.pairs.items() for one in own.values()
    )
    return {name for name, fault in told if fault.endswith(_NO_KV)}


def _causes(
    mute: Iterable[str],
    themselves: Iterable[str],
    wrong: list[Pair],
    every: list[Pair],
    handing_none: Iterable[str],
) -> list[str]:
    """What is likely, in the order in which it explains what was seen.

    mute: servers that did not answer; themselves: those that are wrong without a hand-over.
    """
    found = [
        f"{name} computes other answers than the others even without a hand-over: other weights,"
        " another tokenizer, template or engine; see what differs between the servers"
        for name in sorted(themselves)
    ]
    found += [
        f"{name} hands no KV over: its connector (kv-transfer-config) or proxy.kv_params"
        for name in sorted(handing_none)
    ]
    known = {*mute, *themselves, *handing_none}
    rest = [pair for pair in wrong if not {*pair} & known]
    if len(rest) > 1 and len(rest) == len(every):
        found.append(
            "every pair is wrong though each server alone is right: the KV does not arrive as it"
            " was computed (block size, KV layout, parallel sizes of the connector)"
        )
        return found
    for side, what in enumerate(("hands over other KV than it computed", "reads other KV")):
        for name in sorted({pair[side] for pair in rest}):
            own = [pair for pair in every if pair[side] == name]
            if len(own) > 1 and set(own) <= set(rest):
                found.append(
                    f"{name} {what}, whoever is its partner: its connector's settings (parallel"
                    " sizes, block size, ports); restart it"
                )
                rest = [pair for pair in rest if pair not in own]
    if rest:
        shown = ", ".join(" > ".join(pair) for pair in rest)
        found.append(
            f"{shown}: KV of another prompt, or read in another layout (parallel sizes, block size,"
            " versions of these two)"
        )
    return found


def record(path: Path, plan: Plan, settings: Settings, right: Mapping[str, Answer]) -> None:
    """Write the right answers for later comparisons. Raises OSError."""
    data = {
        "format": 1,
        **_made_for(plan, settings),
        "answers": {name: asdict(answer) for name, answer in right.items()},
    }
    write_atomically(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read(path: Path, plan: Plan, settings: Settings) -> dict[str, Answer]:
    """Recorded answers. Raises InputError where they are none, or to other requests."""
    try:
        data = regular.parsed(path)
        for key, wanted in _made_for(plan, settings).items():
            if data[key] != wanted:
                raise InputError(
                    f"it was recorded with {key} {data[key]!r}, here it is {wanted!r}.",
                    where=str(path),
                    todo="record it anew: invoke verify-serving --record FILE",
                )
        return {
            name: Answer(
                _of_kind(one["text"], str),
                None if one["prompt_tokens"] is None else _of_kind(one["prompt_tokens"], int),
                tuple(
                    Token(_of_kind(t["text"], str), float(t["log"]), _of_kind(t["top"], dict))
                    for t in one["tokens"]
                ),
            )
            for name, one in data["answers"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"it has no recorded answers: {error}.",
            where=str(path),
            todo="make one: invoke verify-serving --record FILE",
        ) from error


def _of_kind(value: Any, kind: type[Kind]) -> Kind:
    if not isinstance(value, kind):
        raise TypeError(f"found {value!r}")
    return value


def _made_for(plan: Plan, settings: Settings) -> dict[str, Union[str, int, bool]]:
    given = settings.verify_serving
    prompts = json.dumps([case.body for case in cases(plan, settings)]).encode()
    return {
        "model": plan.served_name,
        "answer_tokens": given.answer_tokens,
        "long_words": given.long_words,
        "logprobs": given.tolerance is not None,
        "prompts": hashlib.sha256(prompts).hexdigest()[:12],  # max-model-len bounds them too
    }
