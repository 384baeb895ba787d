from __future__ import annotations

import pytest
from omnikit import proxy
from omnikit.errors import InputError


def test_an_unknown_kind_is_refused_with_the_known_ones():
    spec = proxy.ProxySpec("apache", "127.0.0.1", 7000, (), (), "/run", "/log", {})
    for ask in (proxy.command, proxy.reload_command, proxy.check_command, proxy.health_path):
        with pytest.raises(InputError, match=r"'apache'.*nginx-njs, omni-nginx, vllm-router"):
            ask(spec)
    with pytest.raises(InputError, match="known are"):
        proxy.files(spec, "x")
