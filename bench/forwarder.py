"""The limit for Call: a bare grpc.aio handler that forwards by the same aiohttp session, and does nothing else.

Run as `python -m bench.forwarder PORT`, the platform's; it has `bench.Bare/Forward`, with the messages of Call.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
import uvloop
from synposter.accounts.v1 import platform_service_pb2 as pb

from bench.bare import serve
from server.accounts.calls import MOST_IN_FLIGHT
from server.platforms.api_sender import session


async def main(platform: str) -> None:
    made = session(MOST_IN_FLIGHT)

    async def forward(request: pb.CallRequest, context: Any) -> pb.CallResponse:
        headers = {"content-type": request.content_type, "authorization": "Bearer " + "a" * 90}
        async with made.request(
            request.method,
            f"http://127.0.0.1:{platform}{request.path}",
            data=request.body,
            headers=headers,
            allow_redirects=False,
        ) as answer:
            headers = [pb.Header(name=name.lower(), value=value) for name, value in answer.headers.items()]
            return pb.CallResponse(status_code=answer.status, headers=headers, body=await answer.read())

    method = grpc.unary_unary_rpc_method_handler(
        forward, request_deserializer=pb.CallRequest.FromString, response_serializer=pb.CallResponse.SerializeToString
    )
    await serve(Forward=method)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
