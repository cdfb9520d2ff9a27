"""A token endpoint that answers at once: what both sides of the refresh bench talk to."""

from __future__ import annotations

import asyncio
import itertools

import uvloop

BODY = '{{"token_type":"bearer","access_token":"at-{0}","refresh_token":"rt-{0}","expires_in":7200}}'


class Answer(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, just enough for one client that sends its body with its headers."""

    numbers = itertools.count()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
            if len(self.received) < end + 4 + length:
                return
            self.received = self.received[end + 4 + length :]
            body = BODY.format(next(self.numbers))
            answer = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            self.transport.write(answer.encode())  # type: ignore[attr-defined]


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
