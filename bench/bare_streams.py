"""The limit for watching: a bare grpc.aio server whose streams are told something once it is called to, and no more.

It has `bench.Bare/Watch`, and `bench.Bare/Tell`, whose message all streams are told.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc
import uvloop

from bench.bare import serve

waiting: list[asyncio.Future[bytes]] = []


async def watch(_: bytes, context: Any) -> NoReturn:
    await context.write(b"\x12\x00")
    while True:
        told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        waiting.append(told)
        await context.write(await told)


async def tell(message: bytes, _: Any) -> bytes:
    for told in waiting:
        told.set_result(message)
    waiting.clear()
    return b""


async def main() -> None:
    await serve(
        Watch=grpc.unary_stream_rpc_method_handler(watch),
        Tell=grpc.unary_unary_rpc_method_handler(tell),
    )


if __name__ == "__main__":
    uvloop.run(main())
