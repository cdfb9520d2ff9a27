"""The composition root: builds every room from the settings, starts them in order, stops them in reverse."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from server import config
from server.accounts.acting import Actor, CallLane
from server.accounts.audit import AuditLog, Linker
from server.accounts.blocks import Blocks
from server.accounts.bulkhead import Places, share_of_one
from server.accounts.callback import Callback
from server.accounts.callers import Caller
from server.accounts.connect import Connector
from server.accounts.endings import Endings
from server.accounts.erase import Eraser, Retention
from server.accounts.errors import StoreUnavailable
from server.accounts.exchange import Exchanger
from server.accounts.explain import Explainer
from server.accounts.fresh import FreshTokens
from server.accounts.gate import Gate
from server.accounts.identity import IdentityReader
from server.accounts.pauses import PauseWatch
from server.accounts.read import Reader
from server.accounts.refresh import Refresher
from server.accounts.refusals import Refusals
from server.accounts.revoke import Revoker
from server.accounts.time_limit import TimeLimit
from server.accounts.usage import UsageLog
from server.accounts.watching import Watching
from server.collector import spare_the_collector
from server.config import Settings
from server.parts import DEFINITIONS, key_user, new_id, open_engine, platform_apis, registered_platforms
from server.platforms.http import Sender
from server.rpc.account_service import AccountService
from server.rpc.certificates import Certificates, TlsFiles, TlsUnusable
from server.rpc.credentials import Credentials
from server.rpc.operations_service import OperationsService
from server.rpc.page_tokens import PageTokens
from server.rpc.platform_service import PlatformService
from server.rpc.policy import Policy
from server.rpc.resume_tokens import ResumeTokens
from server.rpc.server import CannotListen, GrpcServer
from server.scheduler import Calendar
from server.storage.journal import FileJournal
from server.storage.key_watch import KeyWatch
from server.storage.keyring import KeyRing
from server.storage.migrate import check_keys, check_not_retired, check_schema
from server.storage.served import ServedMark
from server.storage.store import Store
from server.storage.vault import Vault
from server.telemetry import Metrics, set_up_logging
from server.web.callback import CallbackServer

log = logging.getLogger(__name__)

IN_FLIGHT_CAP = 128
SWEEP_LIMIT = 500
CENSUS_SECONDS = 60
RETENTION_SECONDS = 600
SERVED_SECONDS = 5
FAREWELL_SECONDS = 5
"""How long a stop waits at its end for what is only good to have in the database."""


class StartRefused(Exception):
    """The service cannot start; the text says why and what to do."""


class App:
    """One process of the service.

    Tests run the jobs themselves (`run_jobs` False), and move the monotonic clock together with the database's.
    """

    def __init__(
        self, settings: Settings, *, run_jobs: bool = True, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.calendar = Calendar()
        self._run_jobs = run_jobs
        self._monotonic = monotonic
        self.grpc_port = self.http_port = 0

    async def start(self) -> None:
        """Opens the database, then the ports. Raises KeyRingError, SchemaMismatch, DatabaseUnusable, StartRefused.

        A wrong key or schema stops it before a port is open, and changes nothing.
        """
        settings = self.settings
        ring = KeyRing.load(settings.keys.file)
        self.engine = open_engine(settings)
        try:
            check_schema(self.engine.database)
            check_keys(self.engine.database, ring)
            check_not_retired(self.engine.database, ring)
            await self._build(Vault(ring))
            await self.served.check()
            await self.served.keep()
            await self.keys.join()
            await self.pauses.follow()
            await self.blocks.follow()
            await self.refresher.can_store()
            await self._free_dead_leases()
            await self.watching.start()
            await self._open_ports()
        except BaseException:
            self.engine.close()
            raise
        self._plan()
        log.info(
            "serving",
            extra={
                "grpc": self.grpc_port,
                "http": self.http_port,
                "platforms": sorted(self.platforms),
                "pid": os.getpid(),
            },
        )

    async def stop(self) -> None:
        """Drains: claims nothing more, finishes refreshes, exchanges and calls within the drain timeout.

        The rest takes a few seconds more, whatever the database does.
        """
        timeout = self.settings.server.drain_timeout
        log.info("draining", extra={"timeout": timeout.total_seconds()})
        self.grpc.not_serving()
        await self.watching.stop()
        for worker in (self.refresher, self.identities, self.revoker):
            worker.stop()
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await asyncio.gather(
                    self.calendar.stop(), self.refresher.settled(), self.web.stop(), self.grpc.stop(timeout)
                )
                await asyncio.gather(
                    self.exchanger.drain(), self.actor.drain(), self.refresher.settled(), self.revoker.drain()
                )
        except TimeoutError:
            log.error("the drain timeout is over; what is still under way is cut off")
        for platform in self.platforms.values():
            await platform.close()
        for api in self.apis.values():
            await api.close()
        await self.sender.close()
        try:
            with TimeLimit(FAREWELL_SECONDS, StoreUnavailable("the database does not answer in time")):
                await self.served.keep()
                await self.refusals.work_off(leaving=True)
                await self.keys.leave()
        except (StoreUnavailable, OSError) as error:
            log.warning(
                "what this process said of its keys stays in the database; refusals may be missing in the audit",
                extra={"why": str(error)},
            )
        self.engine.close()
        log.info("stopped")

    async def _build(self, vault: Vault) -> None:
        settings = self.settings
        self.store = Store(self.engine, vault, new_id)
        self.sender = Sender()
        self.platforms = registered_platforms(settings, self.sender, self.engine.clock)
        self.gates = {name: Gate(IN_FLIGHT_CAP, self._rate(name), self._monotonic) for name in self.platforms}
        min_interval = settings.refresh.min_interval
        owner = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
        self.journal = FileJournal(settings.journal_folder, vault, new_id)
        self.served = ServedMark(settings.journal_folder, self.store)
        self.keys = KeyWatch(settings.keys.file, self.engine, vault, self.journal, key_user(settings))
        self.blocks = Blocks(self.store)
        self.exchanger = Exchanger(
            self.store, self.platforms, self.gates, self.blocks, self.metrics, new_id, min_interval=min_interval
        )
        self.connector = Connector(self.store, self.platforms, self.gates, self.exchanger, new_id, self._callback_uri)
        self.refusals = Refusals(self.store, self.metrics, self._monotonic)
        callers = {name: caller.to_caller(name) for name, caller in settings.callers.items()}
        self.callback = Callback(self.store, self.platforms, self.exchanger, callers, self.blocks)
        self.reader = Reader(self.store, self.platforms)
        self.refresher = Refresher(
            self.store,
            self.platforms,
            self.gates,
            self.journal,
            self.metrics,
            owner=owner,
            lease=settings.refresh.lease,
            min_interval=min_interval,
        )
        self.identities = IdentityReader(self.store, self.platforms, self.gates)
        self.revoker = Revoker(self.store, self.reader, self.platforms, self.gates, self.metrics)
        self.fresh = FreshTokens(self.store, self.reader, self.refresher, self.gates)
        self.apis = platform_apis(settings, self.engine.clock)
        places = {name: self._places(name, callers.values()) for name in self.apis}
        lanes = {name: CallLane(api, places[name], self.gates[name]) for name, api in self.apis.items()}
        self.actor = Actor(self.store, self.reader, self.fresh, lanes, self.metrics, new_id, self._monotonic)
        self.metrics.watch_calls(places)
        self.explainer = Explainer(self.store, self.reader, self.gates)
        self.pauses = PauseWatch(self.store, self.gates, self.refresher)
        self.linker = Linker(self.store, owner)
        self.eraser = Eraser(self.store, self.platforms, self.revoker)
        retention = settings.retention
        self.endings = Endings(self.store, settings.watch.expiring_soon)
        self.watching = Watching(
            self.store,
            self.reader,
            self.blocks,
            self.metrics,
            self._monotonic,
            heartbeat=settings.watch.heartbeat,
            most=settings.watch.watchers,
        )
        self.store.on_change = self.watching.poke
        self.retention = Retention(self.store, revoked_accounts=retention.revoked_accounts, audit=retention.audit)
        self.metrics.watch(self.gates, self.journal)
        self.metrics.watch_watchers(lambda: self.watching.count)
        self.metrics.watch_database(lambda: bool(self.store.gone_back))
        self.metrics.watch_keys(lambda: self.keys.wraps, lambda: vault.broken)

    def _rate(self, name: str) -> float:
        """Refreshes a second: as configured, else the platform's own."""
        return self.settings.platforms[name].refresh_rate or DEFINITIONS[name].refresh_rate

    def _callback_uri(self, platform: str) -> str:
        return f"{self.settings.server.public_url}/oauth/callback/{platform}"

    async def _open_ports(self) -> None:
        settings = self.settings.server
        token_key = await self.store.page_token_key()
        page_tokens, resume_tokens = PageTokens(token_key), ResumeTokens(token_key)
        self.certificates = self._certificates()
        self.grpc = GrpcServer(
            AccountService(
                self.connector,
                self.reader,
                self.fresh,
                self.revoker,
                self.eraser,
                page_tokens,
                self.watching,
                resume_tokens,
            ),
            PlatformService(self.actor, UsageLog(self.store, self.reader), page_tokens),
            OperationsService(self.explainer, AuditLog(self.store), page_tokens),
            Policy(self._credentials(), self.blocks, self.refusals, clock=self._monotonic),
            ping=self._ready,
            reflection=settings.serves_reflection,
        )
        self.web = CallbackServer(
            self.callback.answer,
            self._healthy,
            settings.drain_timeout,
            platforms=self.platforms,
            clock=self._monotonic,
        )
        try:
            with told_of("the callback", settings.http_listen):
                self.http_port = await self.web.start(*config.split_address(settings.http_listen))
            if settings.metrics_listen is not None:
                with told_of("metrics", settings.metrics_listen):
                    self.metrics.serve(*config.split_address(settings.metrics_listen))
            self.grpc_port = await self.grpc.start(settings.grpc_listen, self.certificates)
        except (StartRefused, CannotListen) as error:
            await self.web.stop()
            raise StartRefused(str(error)) from error

    async def _free_dead_leases(self) -> None:
        """Who holds a SQLite file is alone with it: other processes that had leases are dead."""
        if self.engine.locks_rows:
            return
        try:
            await self.store.free_dead_leases()
        except StoreUnavailable as error:
            # They end by themselves; a full disk must not keep the reads from being served.
            log.warning("the leases of dead processes are not freed", extra={"why": error.text})

    def _credentials(self) -> Credentials:
        return Credentials(self.settings.callers_by_key(), self.settings.callers_by_san())

    def _places(self, platform: str, callers: Iterable[Caller]) -> Places:
        """Those of calls to a platform. Who alone may call it can have all of them."""
        most = self.settings.platforms[platform].calls_in_flight
        alone = sum(platform in caller.routes for caller in callers) <= 1
        return Places(most, most if alone else share_of_one(most))

    def _certificates(self) -> Certificates | None:
        """What the settings say about TLS, as metrics tell it from now on. Raises StartRefused."""
        tls = self.settings.server.tls
        if tls is None:
            return None
        try:
            certificates = Certificates(TlsFiles(tls.cert_file, tls.key_file, tls.client_ca_file))
        except TlsUnusable as error:
            raise StartRefused(f"server.tls: {error}") from error
        self.metrics.certificates_end(certificates.expire_times)
        return certificates

    async def _follow_certificates(self) -> None:
        if self.certificates is not None:
            self.certificates.look()
            self.metrics.certificates_end(self.certificates.expire_times)

    async def _ready(self) -> None:
        """Raises StoreUnavailable while the database does not answer or take writes, or the journal has no room."""
        await self.store.ping()
        if not self.journal.ready:
            raise StoreUnavailable("the journal cannot be written")

    async def _healthy(self) -> bool:
        await self._ready()
        return True

    async def _census(self) -> None:
        self.metrics.counted(await self.store.census())
        self.metrics.linked(await self.store.audit_lag())

    def _plan(self) -> None:
        every = self.calendar.every
        for name in self.platforms:
            every(1, f"refresh {name}", partial(self.refresher.work_off, name))
            every(1, f"revoke {name}", partial(self.revoker.work_off, name))
            every(2, f"identify {name}", partial(self.identities.work_off, name))
        every(1, "pauses", self.pauses.follow)
        every(1, "blocks", self.blocks.follow)
        every(1, "watchers", self.watching.look_after)
        every(1, "refusals", self.refusals.work_off)
        every(2, "keys", self.keys.follow)
        every(SERVED_SECONDS, "served", self.served.keep)
        every(1, "audit", self.linker.work_off)
        every(30, "endings", self.endings.work_off)
        every(5, "erase", self.eraser.work_off)
        every(RETENTION_SECONDS, "retention", self.retention.work_off)
        every(CENSUS_SECONDS, "census", self._census)
        every(5, "sweep", partial(self.store.sweep_requests, limit=SWEEP_LIMIT))
        every(1, "probe", self.grpc.probe)
        every(1, "certificates", self._follow_certificates)
        if self._run_jobs:
            self.calendar.start()


@contextmanager
def told_of(what: str, address: str) -> Iterator[None]:
    """Raises StartRefused that names the port, in the system's words: asyncio's would repeat them around a tuple."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise StartRefused(f"{what} cannot listen on {address}: {why}") from error


async def serve_until_signal(settings: Settings) -> None:
    """Runs one process until SIGTERM or SIGINT, then drains."""
    set_up_logging(settings.log.format, settings.log.level)
    # A shell leaves what it begins in the background deaf to this signal.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    app = App(settings)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await app.start()
    spare_the_collector()
    await stop.wait()
    await app.stop()
