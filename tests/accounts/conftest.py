"""The domain put together over the real store and a scripted platform."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from server.accounts.blocks import Blocks
from server.accounts.callback import Callback
from server.accounts.callers import Caller
from server.accounts.connect import Connector
from server.accounts.erase import Eraser
from server.accounts.exchange import Exchanger
from server.accounts.explain import Explainer
from server.accounts.flow import AuthorizationResponse, SendBrowser
from server.accounts.fresh import FreshTokens
from server.accounts.gate import Gate
from server.accounts.identity import IdentityReader
from server.accounts.model import Account, Secret
from server.accounts.pauses import PauseWatch
from server.accounts.read import Reader
from server.accounts.refresh import Refresher
from server.accounts.revoke import Revoker
from server.storage.clock import Clock
from server.storage.journal import FileJournal
from server.storage.store import Store
from server.storage.vault import Vault
from tests.accounts.script import CALLER, OPERATOR, ScriptedPlatform, Watcher
from tests.accounts.watched import Scene


@dataclass
class House:
    """All use cases, and the shortcuts that tests take through them."""

    store: Store
    clock: Clock
    platform: ScriptedPlatform
    observer: Watcher
    exchanger: Exchanger
    connector: Connector
    callback: Callback
    callers: dict[str, Caller]
    blocks: Blocks
    reader: Reader
    refresher: Refresher
    fresh: FreshTokens
    explainer: Explainer
    pauses: PauseWatch
    identities: IdentityReader
    revoker: Revoker
    eraser: Eraser
    gate: Gate
    journal: FileJournal

    async def begin(self, caller: Caller = CALLER, **fields: object) -> str:
        """Begins a connect; the state."""
        request: dict[str, object] = {
            "profile_id": "p1",
            "platform": "twitter",
            "scopes": (),
            "return_url": "https://app.test/done",
            "redirect_uri": None,
            "account_id": None,
        }
        begun = await self.connector.begin(caller, **{**request, **fields})  # type: ignore[arg-type]
        return parse_qs(urlsplit(begun.authorization_url).query)["state"][0]

    async def come_back(self, state: str, code: str = "code") -> str:
        """Brings the browser to the callback; the completion code that it is sent on with."""
        answer = await self.callback.answer("twitter", AuthorizationResponse(Secret(state), Secret(code)))
        assert isinstance(answer, SendBrowser), answer
        return parse_qs(urlsplit(answer.url).query)["completion_code"][0]

    async def complete(
        self, completion_code: str, caller: Caller = CALLER, profile_id: str = "p1"
    ) -> tuple[Account, ...]:
        return await self.connector.complete(
            caller, profile_id=profile_id, completion_code=Secret(completion_code), response=None
        )

    async def connect(self, **fields: object) -> Account:
        state = await self.begin(**fields)
        profile_id = str(fields.get("profile_id", "p1"))
        [account] = await self.complete(await self.come_back(state), profile_id=profile_id)
        return account

    async def account(self, account_id: str) -> Account:
        account = await self.store.account(account_id)
        assert account is not None
        return account


def moved(clock: Clock) -> Callable[[], float]:
    """A monotonic clock that moves on when tests move time."""
    return lambda: time.monotonic() + clock.offset.total_seconds()


@pytest.fixture
def house(store: Store, clock: Clock, vault: Vault, new_id: Callable[[], str], tmp_path: Path) -> House:
    platform, observer, gate = ScriptedPlatform(store), Watcher(), Gate(16, clock=moved(clock))
    platforms, gates = {"twitter": platform}, {"twitter": gate}
    minute = timedelta(minutes=1)
    reader, blocks = Reader(store, platforms), Blocks(store)
    exchanger = Exchanger(store, platforms, gates, blocks, observer, new_id, min_interval=minute)
    journal = FileJournal(tmp_path / "journal", vault, new_id)
    refresher = Refresher(store, platforms, gates, journal, observer, owner="me", lease=minute, min_interval=minute)
    callers = {caller.name: caller for caller in (CALLER, OPERATOR)}
    revoker = Revoker(store, reader, platforms, gates, observer)
    return House(
        store=store,
        clock=clock,
        platform=platform,
        observer=observer,
        exchanger=exchanger,
        connector=Connector(
            store, platforms, gates, exchanger, new_id, lambda p: f"https://accounts.test/oauth/callback/{p}"
        ),
        callback=Callback(store, platforms, exchanger, callers, blocks),
        callers=callers,
        blocks=blocks,
        reader=reader,
        refresher=refresher,
        fresh=FreshTokens(store, reader, refresher, gates),
        explainer=Explainer(store, reader, gates),
        pauses=PauseWatch(store, gates, refresher),
        identities=IdentityReader(store, platforms, gates),
        revoker=revoker,
        eraser=Eraser(store, platforms, revoker),
        gate=gate,
        journal=journal,
    )


@pytest.fixture
async def scene(store: Store) -> AsyncIterator[Scene]:
    scene = Scene(store)
    yield scene
    await scene.close()
    assert scene.watching.count == 0, "a watch that is closed leaves nothing behind"
