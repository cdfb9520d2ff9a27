"""A platform that follows a script, for tests of the domain over the real store."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from server.accounts.callers import Caller, Permission
from server.accounts.errors import GrantDead
from server.accounts.flow import Endpoints
from server.accounts.grants import TokenSet
from server.accounts.model import Identity, PlatformRules, Secret
from server.storage.store import Store

CALLER = Caller(
    "web",
    frozenset(Permission),
    return_urls=frozenset({"https://app.test/done", "https://app.test/done?lang=en"}),
    redirect_uris=frozenset({"https://app.test/callback"}),
)
OPERATOR = Caller("ops", frozenset(Permission), allow_shim_completion=True)

RULES = PlatformRules(
    id="twitter",
    display_name="X",
    default_scopes=("tweet.read", "users.read", "offline.access"),
    required_scopes=("users.read", "offline.access"),
    allowed_scopes=frozenset({"tweet.read", "tweet.write", "users.read", "offline.access"}),
    code_lifetime=timedelta(seconds=30),
    default_access_token_lifetime=timedelta(hours=2),
    refresh_token_single_use=True,
    replay_grace=timedelta(),
    revocation_supported=True,
    revocation_ends_user_grant=False,
    identity_interval=timedelta(days=30),
    denied_errors=frozenset({"access_denied"}),
)


class ScriptedPlatform:
    """Answers each kind of request with what the test has put in line; by default, with success.

    `calls` records what reached it. An exception in line is raised; an asyncio.Event is waited for before the answer.
    Where nothing is in line, `always` holds the answer to every request of a kind. `dead_tokens` are refused.
    """

    def __init__(self, store: Store, rules: PlatformRules = RULES, issuer: str = "") -> None:
        self.rules = rules
        self.endpoints = Endpoints(
            "https://x.test/a", "https://x.test/t", "https://x.test/r", "https://x.test/me", issuer
        )
        self.calls: list[tuple[str, Any]] = []
        self.lines: dict[str, list[Any]] = {"exchange": [], "refresh": [], "identify": [], "revoke": []}
        self.always: dict[str, Any] = {}
        self.before: dict[str, Callable[[str], Awaitable[None]]] = {}
        self.dead_tokens: set[str] = set()
        self._store = store
        self._minted = 0
        self._called = asyncio.Condition()

    def answer_next(self, kind: str, *answers: Any) -> None:
        self.lines[kind] += answers

    def answer_always(self, kind: str, answer: Any) -> None:
        """None ends it."""
        self.always[kind] = answer

    def count(self, kind: str) -> int:
        return sum(1 for name, _ in self.calls if name == kind)

    async def until_called(self, kind: str, times: int = 1) -> None:
        """Returns when so many requests of a kind have reached it."""
        async with self._called:
            await self._called.wait_for(lambda: self.count(kind) >= times)

    def authorization_url(
        self, *, redirect_uri: str, scopes: Sequence[str], state: Secret, code_verifier: Secret
    ) -> str:
        return f"https://x.test/a?state={state.reveal()}"

    async def exchange(self, *, code: Secret, scopes: Sequence[str], **rest: Any) -> TokenSet:
        answer = await self._next("exchange", code.reveal())
        return answer or await self.mint(tuple(scopes))

    async def refresh(self, token_set: TokenSet) -> TokenSet:
        assert token_set.refresh_token is not None
        answer = await self._next("refresh", token_set.refresh_token.reveal())
        return answer or await self.mint(token_set.scopes)

    async def identify(self, token_set: TokenSet, endpoints: Endpoints | None = None) -> tuple[Identity, ...]:
        answer = await self._next("identify", token_set.access_token.reveal())
        return answer or (Identity("1", "ada", "Ada Lovelace"),)

    async def revoke(self, token: Secret, endpoint: str) -> None:
        await self._next("revoke", token.reveal())

    async def mint(self, scopes: tuple[str, ...], life: timedelta = timedelta(hours=2)) -> TokenSet:
        self._minted += 1
        now = await self._store.now()
        return TokenSet(Secret(f"at-{self._minted}"), Secret(f"rt-{self._minted}"), now + life, scopes)

    async def _next(self, kind: str, detail: str) -> Any:
        async with self._called:
            self.calls.append((kind, detail))
            self._called.notify_all()
        if kind in self.before:
            await self.before[kind](detail)
        while self.lines[kind]:
            answer = self.lines[kind].pop(0)
            if isinstance(answer, asyncio.Event):
                await answer.wait()
                continue
            return told(answer)
        if detail in self.dead_tokens:
            raise GrantDead("Value passed for the token was invalid.", status=400)
        return told(self.always.get(kind))


def told(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


class Watcher:
    """The observer of tests: keeps what was reported."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.lags: list[timedelta] = []

    def refreshed(self, platform: str, outcome: str, seconds: float, lag: timedelta) -> None:
        self.lags.append(lag)
        self.seen.append(("refreshed", outcome))

    def connected(self, platform: str, outcome: str) -> None:
        self.seen.append(("connected", outcome))

    def revoked(self, platform: str, outcome: str) -> None:
        self.seen.append(("revoked", outcome))

    def refused(self, method: str, reason: str) -> None:
        self.seen.append((method, reason))

    def acted(self, platform: str, method: str, outcome: str, seconds: float) -> None:
        self.seen.append(("acted", outcome))
