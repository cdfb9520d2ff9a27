"""A bare grpc.aio server on uvloop: what the service is measured beside."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc


async def serve(**methods: Any) -> None:
    """Serves these handlers as methods of `bench.Bare`, on a port of loopback that it prints, until it is ended."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bare", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.Event().wait()
