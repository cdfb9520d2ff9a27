"""The ledger: users with what they posted, registered apps, and every grant with the tokens that are live in it."""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from sandbox.posts import Posts


def marked(kind: str) -> str:
    """A secret that can be searched for in all output: it says `canary`."""
    return f"sbx-{kind}-canary-{secrets.token_urlsafe(24)}"


@dataclass
class User:
    """Somebody with an account at the platform; the id never changes, the username can."""

    id: str
    username: str
    name: str
    avatar: str

    def get_user_id(self) -> str:
        return self.id


@dataclass
class App:
    """A registered client, as Authlib's ClientMixin wants it."""

    client_id: str
    client_secret: str
    redirect_uris: list[str]

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str | None:
        return None

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(self.client_secret.encode(), client_secret.encode())

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in ("client_secret_basic", "client_secret_post")  # which of them, each platform says itself

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in ("authorization_code", "refresh_token")


@dataclass
class Grant:
    """One consent: which tokens of it are live, and what happened to it."""

    id: str
    client_id: str
    user_id: str
    scope: str
    alive: bool = True
    refresh_token: str | None = None
    access_token: str | None = None
    access_token_expires: float = 0.0
    refreshes: int = 0
    replays: int = 0
    spent: dict[str, float] = field(default_factory=dict)
    """Refresh tokens that were used, and when."""

    # What Authlib asks of a token.
    def check_client(self, client: App) -> bool:
        return client.client_id == self.client_id

    def get_scope(self) -> str:
        return self.scope


@dataclass
class Code:
    """An authorization code, as Authlib's AuthorizationCodeMixin wants it."""

    code: str
    client_id: str
    redirect_uri: str
    scope: str
    user_id: str
    code_challenge: str
    code_challenge_method: str
    expires: float
    grant_id: str | None = None

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


@dataclass
class Settings:
    """How the platform behaves; the control API changes it."""

    access_token_seconds: int = 7200
    code_seconds: float = 30.0
    replay: str = "strict"
    """`strict`: a used refresh token that comes again kills its grant. `grace`: it works for grace_seconds."""
    grace_seconds: float = 0.0
    requests_a_window: int = 100
    """Of one user to one endpoint."""
    window_seconds: float = 900.0
    keep_alive: bool = True
    """False: every connection ends with its answer, so that each request needs a new one."""


class Ledger:
    """All state of the sandbox, in memory."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.apps: dict[str, App] = {}
        self.reset()

    def reset(self) -> None:
        """Forgets users, grants and posts; the registered apps and settings stay."""
        self.users: dict[str, User] = {}
        self.grants: dict[str, Grant] = {}
        self.codes: dict[str, Code] = {}
        self.posts = Posts()
        self._by_refresh: dict[str, Grant] = {}
        self._by_access: dict[str, Grant] = {}
        for username, name in (("ada", "Ada Lovelace"), ("grace", "Grace Hopper")):
            self.add_user(username, name)

    def add_user(self, username: str, name: str, avatar: str = "") -> User:
        user_id = str(1_700_000_000_000 + len(self.users) + 1)
        user = User(user_id, username, name, avatar or f"https://pbs.sandbox.test/{user_id}.png")
        self.users[user.id] = user
        return user

    def user_named(self, username: str) -> User | None:
        return next((user for user in self.users.values() if user.username == username), None)

    def seed(self, client_id: str, user: User, scope: str, refresh_tokens: list[str]) -> None:
        """Grants as so many consents of one user would leave them, each with a refresh token that is given."""
        for refresh_token in refresh_tokens:
            token = {"access_token": marked("at"), "expires_in": self.settings.access_token_seconds}
            self.issue(
                Grant(secrets.token_hex(8), client_id, user.id, scope), {**token, "refresh_token": refresh_token}
            )

    def issue(self, grant: Grant, token: dict[str, Any]) -> None:
        """Makes the tokens of a token response the live ones of the grant."""
        if grant.access_token:
            self._by_access.pop(grant.access_token, None)
        grant.access_token = token["access_token"]
        grant.access_token_expires = time.time() + token["expires_in"]
        self._by_access[token["access_token"]] = grant
        if "refresh_token" in token:
            if grant.refresh_token:  # within the grace this is not the one that was presented: it is superseded
                grant.spent.setdefault(grant.refresh_token, time.time())
            grant.refresh_token = token["refresh_token"]
            self._by_refresh[token["refresh_token"]] = grant
        self.grants[grant.id] = grant

    def present(self, refresh_token: str) -> Grant | None:
        """The grant that a refresh token may renew now. A replay kills its grant, unless it comes in the grace."""
        grant = self._by_refresh.get(refresh_token)
        if grant is None or not grant.alive:
            return None
        if refresh_token == grant.refresh_token:
            return grant
        grant.replays += 1
        age = time.time() - grant.spent.get(refresh_token, 0.0)
        if self.settings.replay == "grace" and age <= self.settings.grace_seconds:
            return grant
        self.kill(grant)
        return None

    def spend(self, grant: Grant, refresh_token: str) -> None:
        grant.refreshes += 1
        grant.spent.setdefault(refresh_token, time.time())

    def kill(self, grant: Grant) -> None:
        grant.alive = False
        grant.refresh_token = grant.access_token = None

    def end_access(self, grant: Grant) -> None:
        """As if its access token had lived its time; the refresh token stays good."""
        grant.access_token_expires = 0.0

    def live_access(self, access_token: str) -> Grant | None:
        grant = self._by_access.get(access_token)
        if grant is None or not grant.alive or grant.access_token != access_token:
            return None
        return grant if grant.access_token_expires > time.time() else None

    def revoke(self, token: str) -> None:
        """RFC 7009 section 2.1: a refresh token takes its access token along; an access token ends alone."""
        if grant := self._by_refresh.get(token):
            if token == grant.refresh_token:
                self.kill(grant)
        elif (grant := self._by_access.get(token)) and token == grant.access_token:
            grant.access_token = None
            if grant.refresh_token is None:
                grant.alive = False

    def known(self, token: str) -> Grant | None:
        return self._by_refresh.get(token) or self._by_access.get(token)

    def report(self) -> list[dict[str, Any]]:
        """Every grant, oldest first."""
        return [
            {**asdict(grant), "spent": list(grant.spent), "username": self.users[grant.user_id].username}
            for grant in self.grants.values()
        ]
