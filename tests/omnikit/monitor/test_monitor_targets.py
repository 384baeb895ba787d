"""What Prometheus reads."""

from __future__ import annotations

from pathlib import Path

from settings_file import FLEET, load

from omnikit.config import config
from omnikit.config.config import Config
from omnikit.monitor.files import PROXY, SERVERS, Target, prometheus, targets
from omnikit.topology.topology import make_plan

LOCAL = config.load("local", environ={})


def of(loaded: Config, exporter: str | None = None) -> list[Target]:
    return targets(make_plan(loaded), loaded.settings, exporter)


def test_every_server_and_the_proxy_with_their_labels() -> None:
    found = of(LOCAL)
    assert [(t.kind, t.address, t.labels["instance"], t.labels["role"]) for t in found] == [
        (SERVERS, "127.0.0.1:9000", "p0", "prefill"),
        (SERVERS, "127.0.0.1:9001", "p1", "prefill"),
        (SERVERS, "127.0.0.1:9100", "d0", "decode"),
        (PROXY, "127.0.0.1:7000", "c0", "proxy"),
    ]
    assert {(t.labels["environment"], t.labels["host"]) for t in found} == {("local", "local")}


def test_each_of_a_nodes_many_servers_is_read(tmp_path: Path) -> None:
    found = of(load(tmp_path, FLEET))
    decode = [t for t in found if t.labels["role"] == "decode"]
    assert len(decode) == 32 and len({t.address for t in found}) == len(found) == 34
    assert decode[17].labels["instance"] == "d1.1" and decode[17].labels["host"] == "d1"


def test_a_proxy_without_metrics_is_read_through_an_exporter(tmp_path: Path) -> None:
    fleet = load(tmp_path, FLEET)
    assert not [t for t in of(fleet) if t.kind == PROXY]
    (proxy,) = [t for t in of(fleet, "192.0.2.1:9113") if t.kind == PROXY]
    assert proxy.address == "192.0.2.1:9113" and proxy.labels["instance"] == "c0"
    for setting in ("proxy.kind=vllm-router", "proxy.metrics=false"):
        loaded = config.load("local", (), [setting], environ={})
        assert not [t for t in of(loaded) if t.kind == PROXY]


def test_a_proxy_on_all_addresses_is_read_at_its_hosts_own(tmp_path: Path) -> None:
    fleet = load(tmp_path, FLEET, ["proxy.kind=nginx-lua", "proxy.kv_params=none"])
    assert [t.address for t in of(fleet) if t.kind == PROXY] == ["192.0.2.1:7000"]


def test_ipv6_addresses_stand_in_brackets(tmp_path: Path) -> None:
    text = FLEET.replace("192.0.2.", "2001:db8::")
    assert of(load(tmp_path, text))[0].address.startswith("[2001:db8::1]:")


def test_the_configuration_has_a_job_for_each_kind() -> None:
    made = prometheus("local", of(LOCAL), LOCAL.settings, "alerts.yml")
    assert [job["job_name"] for job in made["scrape_configs"]] == [
        "omnikit-local-servers",
        "omnikit-local-proxy",
    ]
    assert made["global"]["scrape_interval"] == "15s" and made["rule_files"] == ["alerts.yml"]
    alone = config.load("colocated", environ={})
    jobs = prometheus("x", of(alone), alone.settings, "alerts.yml")["scrape_configs"]
    assert [job["job_name"] for job in jobs] == ["omnikit-x-servers"]
