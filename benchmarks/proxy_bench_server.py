"""A server that answers at once, for bench_proxy.py: what is left is the proxy's own time."""

from __future__ import annotations

import asyncio
import sys

BODIES = {
    "prefill": b'{"kv_transfer_params":{"remote_engine_id":"e","remote_block_ids":[1,2,3]}}',
    "decode": b'{"id":"d","choices":[{"text":"a few words of an answer"}]}',
}


async def serve(role: str) -> None:
    """Print the port, then answer every request with the role's body."""
    body = BODIES[role]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    answer = head.encode() + b"\r\n\r\n" + body

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                headers = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = headers.partition(b"content-length:")[2].partition(b"\r\n")[0].strip()
                await reader.readexactly(int(length or 0))
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
