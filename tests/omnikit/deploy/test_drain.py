"""When an instance counts as idle; asked of real servers in test_roll_prefill."""

from __future__ import annotations

from omnikit.deploy.roll import Loads, Wait, busy, shown


def loads(**load: float | None) -> Loads:
    return {"p0": {"running": 0.0, "waiting": 0.0, "kv_usage": 0.0, **load}}


class Clock:
    """Seconds that only pass when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def waiting() -> Loads:
    return {"d0": {"waiting": 1.0}}


def never_asked() -> Loads:
    raise AssertionError("decode was asked")


def test_requests_and_silence_are_work() -> None:
    assert busy(loads(running=1.0), ["running", "waiting"])
    assert busy(loads(waiting=None), ["running", "waiting"])
    assert not busy(loads(kv_usage=0.5), ["running", "waiting"])
    assert not busy({}, ["running"])  # all servers have ended
    assert not busy({"p0": {"running": 0.0}}, ["kv_usage"])  # not to be had from this engine
    for key in ("running", "waiting"):
        assert not Wait(1, Clock()).over(loads(**{key: 1.0}), never_asked)
        assert not Wait(1, Clock()).over(loads(**{key: None}), never_asked)


def test_nothing_kept_is_idle_at_once() -> None:
    wait = Wait(60, Clock())
    assert wait.over(loads(), never_asked) and wait.why == "idle"


def test_kept_kv_is_waited_for_while_decode_has_requests_waiting() -> None:
    clock = Clock()
    wait = Wait(60, clock)
    assert not wait.over(loads(kv_usage=0.1), waiting)
    assert wait.over(loads(kv_usage=0.1), lambda: {"d0": {"waiting": 0.0}})
    assert "no decode server waits" in wait.why


def test_kept_kv_is_waited_for_no_longer_than_wanted_since_the_last_request() -> None:
    clock = Clock()
    wait = Wait(60, clock)
    assert not wait.over(loads(kv_usage=0.1), waiting)
    clock.now = 59.0
    assert not wait.over(loads(running=1.0), waiting)  # one came late: the time begins anew
    clock.now = 70.0
    assert not wait.over(loads(kv_usage=0.1), waiting)
    clock.now = 129.0
    assert not wait.over(loads(kv_usage=None), waiting)
    clock.now = 130.0
    assert wait.over(loads(kv_usage=0.1), waiting)
    assert "nobody has fetched its KV for 60 s" in wait.why


def test_loads_for_a_person() -> None:
    assert shown(loads(waiting=None)) == "p0 running 0, waiting unknown, kv_usage 0"
