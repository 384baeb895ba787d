from __future__ import annotations

from running_proxy import backend, nginx, start

__all__ = ["backend", "nginx", "start"]
