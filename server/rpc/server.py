"""The gRPC server: its options, its services with every method guarded, its start and stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any, Final, TypeAlias

import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection as grpc_reflection
from grpc_reflection.v1alpha import reflection_pb2
from synposter.accounts.v1 import account_service_pb2, operations_service_pb2, platform_service_pb2

from server.accounts.callers import Caller
from server.rpc.account_service import AccountService
from server.rpc.certificates import Certificates
from server.rpc.guard import guarded, guarded_stream, parser
from server.rpc.health import Health
from server.rpc.operations_service import OperationsService
from server.rpc.platform_service import PlatformService
from server.rpc.policy import LARGEST_REQUEST, Method, Policy

ACCOUNTS: Final = account_service_pb2.DESCRIPTOR.services_by_name["AccountService"]
OPERATIONS: Final = operations_service_pb2.DESCRIPTOR.services_by_name["OperationsService"]
PLATFORMS: Final = platform_service_pb2.DESCRIPTOR.services_by_name["PlatformService"]
HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"]
REFLECTION: Final = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]

Handler: TypeAlias = "grpc.GenericRpcHandler[bytes, bytes]"  # generic in its stubs only

MOST_CONNECTIONS: Final = 1_000
MOST_CALLS: Final = 10_000
"""At once. Each takes some 20 kB from its first header on, and gRPC waits for the rest of it as long as it takes."""

OPTIONS: Final = (
    # grpcio shares ports by default: a second server would bind the first one's and take some of its calls.
    ("grpc.so_reuseport", 0),
    # The largest that any method takes; the guard holds each to its own.
    ("grpc.max_receive_message_length", LARGEST_REQUEST),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # Finds callers that are gone without a word, and lets callers ping idle connections as often as every 30 s.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 30_000),
    # A certificate is looked at when a connection begins: none lives so long that one that ended matters for days.
    ("grpc.max_connection_age_ms", 30 * 60_000),
    # What is under way then may take its whole time: cut off, its caller would not hear what became of a post.
    ("grpc.max_connection_age_grace_ms", 150_000),
    # Half-open and idle connections give their place back, and there are never so many that no file is left to open.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 5 * 60_000),
    ("grpc.max_allowed_incoming_connections", MOST_CONNECTIONS),
    # More than all that wait for platforms, so that they never keep a read on their connection waiting.
    ("grpc.max_concurrent_streams", 2_000),
    # gRPC drops calls that wait to be begun, from 1,000 on at random and whosever they are, with a bare CANCELLED.
    ("grpc.server.max_pending_requests", MOST_CALLS // 2),
    ("grpc.server.max_pending_requests_hard_limit", MOST_CALLS),
)


class CannotListen(RuntimeError):
    """The address is taken, or is none of this machine's."""


class GrpcServer:
    """Serves AccountService, PlatformService, OperationsService, health and, if asked for, reflection.

    `ping` returns while the service is ready and raises otherwise. Raises MethodWithoutPolicy.
    """

    def __init__(
        self,
        accounts: AccountService,
        acting: PlatformService,
        operations: OperationsService,
        policy: Policy,
        *,
        ping: Callable[[], Awaitable[None]],
        reflection: bool,
    ) -> None:
        behaviours = {ACCOUNTS: accounts, PLATFORMS: acting, OPERATIONS: operations}
        self._health = Health(ping, [service.full_name for service in behaviours])
        behaviours[HEALTH] = self._health
        self._handlers = [generic_handler(kind, behaviour, policy) for kind, behaviour in behaviours.items()]
        if reflection:
            names = (*(kind.full_name for kind in behaviours), REFLECTION.full_name)
            self._handlers.append(generic_handler(REFLECTION, Reflection(names), policy))
        self._server: grpc.aio.Server | None = None

    async def start(self, listen: str, certificates: Certificates | None = None) -> int:
        """Listens on `host:port` and returns the port, which is chosen by the system for 0. Raises CannotListen.

        Without certificates it speaks in clear, which is for loopback only: the settings see to that.
        """
        server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MOST_CALLS)
        server.add_generic_rpc_handlers(self._handlers)
        try:
            if certificates is None:
                port = server.add_insecure_port(listen)
            else:
                port = server.add_secure_port(listen, certificates.credentials())
        except RuntimeError as error:
            raise CannotListen(f"gRPC cannot listen on {listen}: taken, or not an address of this machine") from error
        await self.probe()
        await server.start()
        self._server = server
        return port

    async def probe(self) -> None:
        """Asks the store how it is and tells those who watch the health; call it every few seconds."""
        await self._health.probe()

    def not_serving(self) -> None:
        """Tells health checks that the server is leaving; calls are still answered."""
        self._health.not_serving()

    async def stop(self, grace: timedelta) -> None:
        """Takes no new calls, lets those in flight end within `grace`, then cancels them."""
        self._health.end()
        if self._server is not None:
            await self._server.stop(grace.total_seconds())


class Reflection:
    """Server reflection over the guard: behaves as grpcio's, which has no use for its context."""

    def __init__(self, services: Iterable[str]) -> None:
        self._servicer = grpc_reflection.aio.ReflectionServicer(services)  # type: ignore[attr-defined]  # missing in its stubs

    def ServerReflectionInfo(self, requests: Any, _caller: Caller) -> Any:  # noqa: N802
        return self._servicer.ServerReflectionInfo(requests, None)


def generic_handler(service: ServiceDescriptor, behaviour: object, policy: Policy) -> Handler:
    """The service's methods, all of which `behaviour` has by their names and the policy has a line for."""
    handlers = {method.name: method_handler(method, behaviour, policy) for method in service.methods}
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def method_handler(method: MethodDescriptor, behaviour: object, policy: Policy) -> Any:
    behave = getattr(behaviour, method.name)
    line = policy.line(method.full_name)
    known = Method(method.name, line, parser(GetMessageClass(method.input_type), line.largest))
    if not method.server_streaming:
        return grpc.unary_unary_rpc_method_handler(guarded(behave, known, policy))
    call = guarded_stream(behave, known, policy)
    kind = grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_stream_rpc_method_handler
    return kind(call)
