from __future__ import annotations

from small_site import site

__all__ = ["site"]
