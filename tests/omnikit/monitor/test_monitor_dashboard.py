"""The dashboard; test_deploy puts its queries to a real Prometheus."""

from __future__ import annotations

import json
from typing import Any

from omnikit.config import config
from omnikit.monitor.files import dashboard, queries

LOCAL = config.load("local", environ={}).settings
NPU = config.load("2p1d", environ={}).settings
ROLES = ["prefill", "decode"]


def rows(made: dict[str, Any]) -> list[str]:
    return [panel["title"] for panel in made["panels"] if panel["type"] == "row"]


def test_a_row_for_each_role_that_is_there() -> None:
    assert rows(dashboard("local", LOCAL, ROLES, proxy=True)) == [
        "Overview",
        "Prefill",
        "Decode",
        "Proxy",
    ]
    assert rows(dashboard("x", LOCAL, ["colocated"], proxy=False)) == ["Overview", "Co-located"]


def test_panels_without_data_are_left_out() -> None:
    made = json.dumps(dashboard("x", LOCAL, ROLES, proxy=True, counted=False, uncached=["prefill"]))
    assert "Requests that failed" not in made and "prefix cache" not in made
    assert "Connections of clients" in made and "nginx_http_requests_total" in made


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard("local", LOCAL, ROLES, proxy=True)["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        xs = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in xs for y in range(place["y"], place["y"] + place["h"])}
        assert not taken & cells and max(x for x, _ in cells) < 24
        taken |= cells


def test_servers_are_chosen_by_role_and_instance() -> None:
    made = dashboard("local", LOCAL, ROLES, proxy=False)
    variables = {one["name"]: one for one in made["templating"]["list"]}
    assert list(variables) == ["datasource", "role", "instance"]
    assert variables["instance"]["definition"] == (
        'label_values(up{environment="local",role=~"$role"}, instance)'
    )
    for text in queries(made):
        assert 'environment="local"' in text
        assert "ALERTS" in text or ('role=~"$role"' in text and 'instance=~"$instance"' in text)


def test_names_are_those_of_the_environments_engine() -> None:
    """vLLM 0.9.0 has other names than 0.32 for some, and does not count handed-over tokens."""
    text = json.dumps(dashboard("2p1d", NPU, ROLES, proxy=False))
    for name in ("gpu_cache_usage_perc", "time_per_output_token_seconds", "gpu_prefix_cache_hits"):
        assert f"vllm:{name}" in text
    assert "vllm:kv_cache_usage_perc" not in text and "KV handed over" not in text
    ours = json.dumps(dashboard("local", LOCAL, ROLES, proxy=False))
    for name in ("kv_cache_usage_perc", "inter_token_latency_seconds", "prefix_cache_hits"):
        assert f"vllm:{name}" in ours
    assert "KV handed over" in ours and "gpu_" not in ours


def test_a_name_is_cut_where_grafana_would_refuse_it() -> None:
    assert len(dashboard("e" * 63, LOCAL, [], proxy=False)["uid"]) == 40
