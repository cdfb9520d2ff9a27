"""The limit to compare with: a bare grpc.aio server on uvloop whose one method returns an empty message."""

from __future__ import annotations

from typing import Any

import grpc
import uvloop
from google.protobuf.empty_pb2 import Empty

from bench.bare import serve


async def noop(request: Any, context: Any) -> Empty:
    return Empty()


async def main() -> None:
    method = grpc.unary_unary_rpc_method_handler(
        noop, request_deserializer=Empty.FromString, response_serializer=Empty.SerializeToString
    )
    await serve(Noop=method)


if __name__ == "__main__":
    uvloop.run(main())
