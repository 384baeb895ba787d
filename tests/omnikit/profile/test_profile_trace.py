"""Times of operators and of nothing, from intervals and nested events."""

from __future__ import annotations

import pytest

from omnikit.profile.trace import Trace, is_communication, length, own_times, union


def test_overlapping_time_counts_once() -> None:
    assert union([(5, 6), (0, 2), (1, 3), (3, 4)]) == [(0, 4), (5, 6)]
    assert union([]) == []
    assert length([(0, 4), (5, 6)], (2, 5.5)) == 2.5
    assert length([(0, 1)], (2, 3)) == 0


def test_the_time_of_what_was_called_is_not_the_callers_own() -> None:
    spans = [(0, 100), (10, 30), (15, 5), (50, 20), (100, 10)]
    events = [{"ts": ts, "dur": dur} for ts, dur in spans]
    assert own_times(events) == [50, 25, 5, 20, 10]


@pytest.mark.parametrize(
    "name",
    [
        "c10d::allreduce_",
        "nccl:all_reduce",
        "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
        "gloo:broadcast",
        "hcom_allGather__352_1_1",
        "hcom_reduceScatter_",
        "HcclAllreduce",
        "vllm::all_reduce",
        "allToAll",
        "MoeDistributeDispatch",
        "MoeDistributeCombine",
    ],
)
def test_what_moves_data_between_workers(name: str) -> None:
    assert is_communication(name)


@pytest.mark.parametrize(
    "name", ["aten::addmm", "MatMulV2", "aten::index_select", "aten::send_to", "BroadcastTo"]
)
def test_what_does_not(name: str) -> None:
    assert not is_communication(name)


def test_operators_are_counted_by_name() -> None:
    trace = Trace("x")
    trace.add("a", 1.5)
    trace.add("a", 2.5)
    assert (trace.operators["a"].calls, trace.operators["a"].self_us) == (2, 4.0)
    assert not trace.operators["a"].communication
