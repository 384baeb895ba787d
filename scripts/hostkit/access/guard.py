"""Loaded by the API server itself (--middleware): no path but /health without the server's key.

vLLM's own check of VLLM_API_KEY leaves all paths open that do not begin with /v1, and some of
those generate (/invocations) or change the server (/sleep, /start_profile).
"""

from __future__ import annotations

import hmac
import os
from typing import Any, Awaitable, Callable

_OPEN = ("/health",)
_TEXT = b'{"error":{"message":"This server answers its proxy alone.","type":"invalid_request_error"'
_TEXT += b',"param":null,"code":"invalid_api_key"}}'


class Guard:
    """Middleware of ASGI."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        key = os.environ.get("VLLM_API_KEY", "")
        if not key:
            raise RuntimeError("VLLM_API_KEY is not set: the server would be open to everybody")
        self.app = app
        self.wanted = f"Bearer {key}".encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket") or self._may(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": _TEXT})

    def _may(self, scope: dict[str, Any]) -> bool:
        if scope["path"] in _OPEN:
            return True
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(sent) == 1 and hmac.compare_digest(sent[0], self.wanted)
