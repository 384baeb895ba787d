"""What the truth gate finds, on small real servers with one fault each; no alarm without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import pytest
from truth_servers import Engine

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.deploy import alike, truth
from omnikit.plan.types import Plan
from omnikit.topology.topology import make_plan

ROOT = Path(__file__).resolve().parents[3]
Site = dict[str, Engine]
Made = Callable[..., tuple[Plan, Any, Site]]


@pytest.fixture
def made() -> Iterator[Made]:
    """A deployment of two prefill and two decode servers, and its engines."""
    running: list[Engine] = []

    def make(*settings: str, count: int = 2) -> tuple[Plan, Any, Site]:
        engines = {f"{r[0]}{n}": Engine(r) for r in ("prefill", "decode") for n in range(count)}
        engines["c0"] = Engine("proxy")
        running.extend(engines.values())
        ports = {name: one.port for name, one in engines.items()}
        told = []
        for role in ("prefill", "decode"):
            own = [ports[f"{role[0]}{number}"] for number in range(count)]
            parts = [f"{{hosts: [local], api_port: {port}}}" for port in own]
            told.append(f"topology.{role}=[{', '.join(parts)}]")
        told += [
            f"ports.proxy={ports['c0']}",
            "ports.ephemeral_low=65536",
            "verify_serving.long_words=40",
            *settings,
        ]
        loaded = config.load(str(ROOT / "tests/environments/shapes.yaml"), assignments=told)
        return make_plan(loaded), loaded.settings, engines

    yield make
    for one in running:
        one.backend.close()


def failed(verdict: truth.Verdict) -> dict[str, str]:
    return {one.name: one.found for one in verdict.checks if not one.passed}


EVERY = {f"{p} > {d}" for p in ("p0", "p1") for d in ("d0", "d1")}


def test_right_answers_pass_and_every_pair_was_asked_everything(made: Made) -> None:
    plan, settings, engines = made()
    for _ in range(20):
        verdict = truth.run(plan, settings)
        assert verdict.passed and not verdict.causes, failed(verdict)
    names = {check.name for check in verdict.checks}
    alone = {"d0 alone", "d1 alone", "p0 first token", "p1 first token"}
    assert names == EVERY | alone | {"proxy"}
    assert verdict.checks[-1].found == "9 of 9 right"  # several prompts in one request besides
    assert all(check.found == "8 of 8 right" for check in verdict.checks if check.name in EVERY)
    seen = [one for engine in engines.values() for one in engine.backend.seen if one.body]
    salts = [one.data["cache_salt"] for one in seen if "kv_transfer_params" not in one.data]
    assert len(set(salts)) == len(salts), "a prompt could have been in the cache"


def test_a_short_one_asks_every_pair_too(made: Made) -> None:
    plan, settings, engines = made()
    verdict = truth.run(plan, settings, short=True)
    assert verdict.passed and {check.name for check in verdict.checks} > EVERY
    decode = [one.data for name in ("d0", "d1") for one in engines[name].backend.seen]
    assert len([body for body in decode if "kv_transfer_params" in body]) == 8
    assert len({json.dumps(body.get("prompt", body.get("messages"))) for body in decode}) == 8


def spoil(site: Site, who: str, **what: Any) -> None:
    for name, value in what.items():
        setattr(site[who], name, value)


OTHER = {"kv": lambda prompt: "the prompt of somebody else"}
FAULTS: list[tuple[str, dict[str, dict[str, Any]], set[str], str]] = [
    ("KV of another prompt, by prefill", {"p1": OTHER}, {"p1 > d0", "p1 > d1"}, "p1 hands over"),
    ("KV of another prompt, by decode", {"d1": OTHER}, {"p0 > d1", "p1 > d1"}, "d1 reads other KV"),
    (
        "parallel sizes that do not fit",
        {"d0": {"kv": lambda p: p[::-1]}, "d1": {"kv": lambda p: p[::-1]}},
        EVERY,
        "every pair is wrong though each server alone is right",
    ),
    (
        "other weights on one prefill host",
        {"p0": {"weights": "other"}},
        {"p0 > d0", "p0 > d1", "p0 first token"},
        "p0 computes other answers",
    ),
    ("other weights on one decode host", {"d1": {"weights": "other"}}, {"d1 alone"}, "d1 computes"),
    (
        "another tokenizer",
        {"d0": {"spelling": "t"}},
        {"d0 alone", "p0 > d0", "p1 > d0"},
        "d0 computes other answers",
    ),
    (
        "nothing handed over",
        {"p0": {"keeps": False}},
        {"p0 > d0", "p0 > d1"},
        "p0 hands no KV over",
    ),
    (
        "streams that are cut",
        {"d1": {"cut": True}},
        {"d1 alone", "p0 > d1", "p1 > d1"},
        "no answer: d1: the stream",
    ),
]


@pytest.mark.parametrize(("what", "wrong", "named", "cause"), FAULTS, ids=[f[0] for f in FAULTS])
def test_a_fault_is_found_and_named(
    made: Made, what: str, wrong: dict[str, dict[str, Any]], named: set[str], cause: str
) -> None:
    plan, settings, engines = made()
    for who, how in wrong.items():
        spoil(engines, who, **how)
    verdict = truth.run(plan, settings)
    assert set(failed(verdict)) == named
    assert len(verdict.causes) == 1 and verdict.causes[0].startswith(cause)


def test_one_pair_alone_that_does_not_fit(made: Made) -> None:
    """Its partners are right with all others: as after an upgrade of half the deployment."""
    plan, settings, engines = made()
    engines["p1"].kv = lambda prompt: f"{prompt}\0new layout"
    engines["d1"].kv = lambda prompt: prompt.removesuffix("\0new layout")
    verdict = truth.run(plan, settings)
    assert set(failed(verdict)) == {"p1 > d0"}
    assert verdict.causes[0].startswith("p1 > d0: KV of another prompt, or read in another layout")


def test_a_server_that_is_gone_costs_no_more_than_one_wait(made: Made) -> None:
    plan, settings, engines = made()
    engines["d0"].backend.close()
    verdict = truth.run(plan, settings)
    assert {"d0 alone", "p0 > d0", "p1 > d0"} == set(failed(verdict))
    assert len(verdict.causes) == 1 and verdict.causes[0].startswith("no answer: d0")


def test_a_proxy_that_hands_over_wrongly_is_named(made: Made) -> None:
    plan, settings, engines = made()
    spoil(engines, "c0", weights="not those that answer")
    verdict = truth.run(plan, settings)
    assert set(failed(verdict)) == {"proxy"} and "the proxy is not" in verdict.causes[0]


def test_with_one_pair_the_two_are_held_against_each_other(made: Made) -> None:
    plan, settings, engines = made(count=1)
    assert truth.run(plan, settings).passed
    spoil(engines, "p0", weights="other")
    assert {"p0 first token", "p0 > d0"} <= set(failed(truth.run(plan, settings)))


def test_where_no_server_may_be_asked_alone_pairs_are_held_together(made: Made) -> None:
    plan, settings, engines = made("verify_serving.alone=false")
    assert truth.run(plan, settings).passed
    spoil(engines, "p1", **OTHER)
    verdict = truth.run(plan, settings)
    assert {"p1 > d0", "p1 > d1"} <= set(failed(verdict))
    decode = [one.data for name in ("d0", "d1") for one in engines[name].backend.seen]
    assert all("kv_transfer_params" in body for body in decode)


def test_long_prompts_are_no_longer_than_a_server_takes(made: Made) -> None:
    few = "server.args.max-model-len=256"
    for more, most in (((), 4096), ((few,), 256), (("engine.max_transferable_prompt=99",), 99)):
        plan, settings, _ = made("verify_serving.long_words=400", *more)
        sizes = [len(str(case.body.get("prompt"))) for case in truth.cases(plan, settings)]
        assert most // 4 < max(sizes) < most * 0.75 + 60


def test_large_deployments_ask_each_pair_less_and_all_of_them(made: Made) -> None:
    plan, settings, _ = made("verify_serving.requests=8")
    verdict = truth.run(plan, settings)
    assert verdict.passed
    assert {c.found for c in verdict.checks if c.name in EVERY} == {"2 of 2 right"}


def test_recorded_answers_are_the_measure(made: Made, tmp_path: Path) -> None:
    plan, settings, engines = made()
    file = tmp_path / "right.json"
    truth.record(file, plan, settings, truth.run(plan, settings).right)
    known = truth.read(file, plan, settings)
    assert truth.run(plan, settings, reference=known).passed
    for one in engines.values():
        one.weights = "all others"
    assert truth.run(plan, settings).passed
    verdict = truth.run(plan, settings, reference=known)
    assert set(failed(verdict)) > EVERY


BROKEN: list[Any] = [[], {"a": 1}, {"a": {"text": 1, "prompt_tokens": 1, "tokens": []}}]
NONE = ["", "[]", '{"format": 1}', "{}", "[" * 9999]


@pytest.mark.parametrize("answers", BROKEN, ids=range(len(BROKEN)))
def test_answers_that_are_none_are_refused(made: Made, tmp_path: Path, answers: Any) -> None:
    plan, settings, _ = made(count=1)
    file = tmp_path / "right.json"
    truth.record(file, plan, settings, {})
    file.write_text(json.dumps({**json.loads(file.read_text()), "answers": answers}))
    with pytest.raises(InputError, match="no recorded answers"):
        truth.read(file, plan, settings)


@pytest.mark.parametrize("text", NONE, ids=range(len(NONE)))
def test_a_file_that_has_no_answers_is_refused(made: Made, tmp_path: Path, text: str) -> None:
    plan, settings, _ = made(count=1)
    file = tmp_path / "right.json"
    file.write_text(text)
    with pytest.raises(InputError, match="no recorded answers"):
        truth.read(file, plan, settings)


def test_answers_to_other_requests_are_refused(made: Made, tmp_path: Path) -> None:
    plan, settings, _ = made(count=1)
    truth.record(tmp_path / "right.json", plan, settings, {})
    more = settings.model_copy(
        update={"verify_serving": settings.verify_serving.model_copy(update={"answer_tokens": 99})}
    )
    with pytest.raises(InputError, match="recorded with answer_tokens 12, here it is 99"):
        truth.read(tmp_path / "right.json", plan, more)


def test_within_the_tolerance_log_probabilities_may_differ(made: Made) -> None:
    plan, settings, engines = made("verify_serving.tolerance=0.1")
    spoil(engines, "d1", noise=0.05)
    assert truth.run(plan, settings).passed
    spoil(engines, "d1", noise=0.5)
    verdict = truth.run(plan, settings)
    assert {"d1 alone", "p0 > d1", "p1 > d1"} == set(failed(verdict))
    assert "has log-probability -1.5 instead of -1" in failed(verdict)["d1 alone"]


def tokens(*told: tuple[str, float, dict[str, float]]) -> truth.Answer:
    return truth.Answer("".join(t[0] for t in told), 5, tuple(truth.Token(*one) for one in told))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (("b", -1.02, {}), ""),  # as likely: what follows is another answer, and no fault
        (("c", -4.0, {}), "token 2 is 'c', 3 less likely"),
        (("d", -1.0, {}), "token 2 is 'd', not among the likeliest"),
    ],
)
def test_answers_may_part_where_two_tokens_are_as_likely(
    other: tuple[str, float, dict[str, float]], expected: str
) -> None:
    right = tokens(("x", -0.1, {}), ("a", -1.0, {"a": -1.0, "b": -1.02, "c": -4.0}), ("z", -1, {}))
    found = tokens(("x", -0.1, {}), other, ("y", -9.0, {}))
    assert truth.difference(found, right, 0.1) == expected
    assert truth.difference(found, right, None).startswith("'") or not expected


def told(plan: Plan, settings: Any) -> dict[str, str]:
    """What differs, as the servers themselves say; no host was deployed to."""
    checks = alike.checks(plan, settings)
    return {one.name: one.found for one in checks if not one.passed and "host" not in one.name}


def test_servers_that_say_the_same_are_alike(made: Made) -> None:
    plan, settings, _ = made()
    assert told(plan, settings) == {}


@pytest.mark.parametrize(
    ("fault", "name", "found"),
    [
        ({"version": "0.31.0"}, "engine's release", "0.31.0 on p1; 0.32.0 on p0, d0, d1"),
        ({"version": None}, "engine's release", "does not say on p1; 0.32.0 on p0, d0, d1"),
        ({"block_size": "16"}, "block size of the KV cache", "16 on p1; 128 on p0, d0, d1"),
    ],
)
def test_a_server_that_says_otherwise_is_named(
    made: Made, fault: dict[str, Optional[str]], name: str, found: str
) -> None:
    plan, settings, engines = made()
    spoil(engines, "p1", **fault)
    assert told(plan, settings) == {name: f"{name} differs: {found}"}


def test_another_tokenizer_is_named(made: Made) -> None:
    plan, settings, engines = made()
    spoil(engines, "d1", spelling="t")
    found = told(plan, settings)
    assert set(found) == {"tokens of a text", "tokens of a chat"}
    assert all("… on d1; " in text for text in found.values())


def test_a_plan_is_asked_as_it_stands(made: Made) -> None:
    """Layerwise: nobody but the proxy can choose a pair."""
    plan, settings, engines = made(
        "proxy.kv_params=layerwise", "connectors.NixlConnector.handover=push"
    )
    verdict = truth.run(plan, settings)
    assert verdict.passed and {c.name for c in verdict.checks} == {"d0 alone", "d1 alone", "proxy"}
    assert not engines["p0"].backend.seen
