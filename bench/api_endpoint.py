"""A platform that takes every post, at once or after so many seconds: `python -m bench.api_endpoint [SECONDS]`."""

from __future__ import annotations

import asyncio
import sys

import uvloop

BODY = b'{"data":{"id":"1990000000000000000","text":"hello","edit_history_tweet_ids":["1990000000000000000"]}}'
ANSWER = (
    b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nx-rate-limit-limit: 100\r\n"
    b"x-rate-limit-remaining: 99\r\nx-rate-limit-reset: 4000000000\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


class Answer(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, just enough for clients that send one request after the other."""

    seconds = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.received[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
        if len(self.received) < end + 4 + length:
            return
        self.received = self.received[end + 4 + length :]
        if self.seconds:
            asyncio.get_running_loop().call_later(self.seconds, self.answer)
        else:
            self.answer()

    def answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(ANSWER)  # type: ignore[attr-defined]


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0, backlog=2_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    Answer.seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
    uvloop.run(main())
