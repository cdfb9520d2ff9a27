"""The API of a platform as registered here: fulfils the domain's `Api` port with the pieces beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from server.accounts.calls import ApiAnswer, ApiCall
from server.accounts.grants import TokenSet
from server.platforms import api
from server.platforms.api_sender import ApiSender
from server.platforms.definition import OAuth2Platform
from server.platforms.registration import Registration


class PlatformApi:
    """See `server.accounts.calls.Api` for what is promised. `now` gives aware UTC time."""

    def __init__(
        self,
        definition: OAuth2Platform,
        registration: Registration,
        now: Callable[[], datetime],
        *,
        connections: int,
    ) -> None:
        self.rules = definition.api
        self.base = api.Origin.of(registration.api_base(definition))
        self._closed = api.closed_paths(registration.endpoints(definition))
        self.sender = ApiSender(connections)
        self.now = now

    def prepare(self, call: ApiCall) -> Prepared:
        request = api.build(self.rules, self.base, self._closed, call)
        return Prepared(self, request, *api.terms_of(self.rules, call))

    async def close(self) -> None:
        await self.sender.close()


@dataclass(frozen=True, slots=True)
class Prepared:
    """See `server.accounts.calls.PreparedCall`."""

    _api: PlatformApi
    _request: api.ApiRequest
    route: str
    scopes: Sequence[str]

    async def send(self, token_set: TokenSet, limit: timedelta) -> ApiAnswer:
        reply = await self._api.sender.send(self._request, token_set.access_token, limit)
        return api.read_answer(self._api.rules, self._api.base, reply, token_set, self._api.now)
