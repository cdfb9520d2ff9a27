"""The limit to compare with: a bare grpc.aio server on uvloop whose one method returns an empty message."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import uvloop
from google.protobuf.empty_pb2 import Empty


async def noop(request: Any, context: Any) -> Empty:
    return Empty()


async def main() -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    method = grpc.unary_unary_rpc_method_handler(
        noop, request_deserializer=Empty.FromString, response_serializer=Empty.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bare", {"Noop": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
