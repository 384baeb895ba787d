from __future__ import annotations

import pytest

from hostkit.base.errors import InputError
from omnikit import proxy
from omnikit.config import config


def test_an_unknown_kind_is_refused_with_the_known_ones():
    spec = proxy.ProxySpec("apache", "127.0.0.1", 7000, (), (), "/run", "/log", {})
    for ask in (proxy.command, proxy.reload_command, proxy.check_command, proxy.health_path):
        with pytest.raises(
            InputError, match=r"'apache'.*nginx-lua, omni-nginx, omni-proxy, vllm-router"
        ):
            ask(spec)
    with pytest.raises(InputError, match="known are"):
        proxy.files(spec, "x")


def test_the_name_of_earlier_versions_is_understood():
    loaded = config.load("local", assignments=["proxy.kind=nginx-njs"], environ={})
    assert loaded.settings.proxy.kind == "nginx-lua"
    spec = proxy.ProxySpec("nginx-njs", "127.0.0.1", 7000, (), (), "/run", "/log", {})
    assert proxy.command(spec)[0].endswith("nginx")
