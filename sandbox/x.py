"""X, as the sandbox plays it: authorize, token, revoke, and who am I. Other platforms are variations of it."""

from __future__ import annotations

import json
import time
from typing import Any

from aiohttp import web
from authlib.oauth2.rfc6749 import OAuth2Error

from sandbox import pages
from sandbox.faults import Faults
from sandbox.ledger import Grant, Ledger, User
from sandbox.oauth_server import Answer, Request, XServer

PROBLEM = "https://api.twitter.com/2/problems"
NOT_AUTHORIZED = f"{PROBLEM}/not-authorized-for-resource"
SENT_SECRETS = ("code", "code_verifier", "refresh_token")
GIVEN_SECRETS = ("access_token", "refresh_token")


class X:
    """The four endpoints over a ledger. `log` records each request that reached one of them."""

    name = "X"

    def __init__(self, ledger: Ledger, faults: Faults, log: list[dict[str, Any]]) -> None:
        self._ledger = ledger
        self._faults = faults
        self._server = self.make_server(ledger)
        self._log = log

    def make_server(self, ledger: Ledger) -> XServer:
        return XServer(ledger)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/i/oauth2/authorize", self.ask, allow_head=False),
            web.post("/i/oauth2/authorize", self.decide),
            web.post("/2/oauth2/token", self.token),
            web.post("/2/oauth2/revoke", self.revoke),
            web.get("/2/users/me", self.me, allow_head=False),
        ]

    # --- for browsers

    async def ask(self, request: web.Request) -> web.Response:
        """The sign-in page, or with a username the consent page."""
        oauth_request = await to_oauth(request)
        noted = self._note("authorize", "asked")
        try:
            grant = self._server.get_consent_grant(oauth_request)
        except OAuth2Error as error:
            return self.refused(error, noted)
        username = request.query.get("username")
        if not username:
            users = [(user.username, user.name) for user in self._ledger.users.values()]
            return html(pages.sign_in(self.name, request.query, users))
        scopes = (oauth_request.payload.scope or "").split()
        return html(pages.consent(self.name, username, grant.client.client_id, scopes))

    async def decide(self, request: web.Request) -> web.StreamResponse:
        """Allow or deny, for persons and programs: a form with username, decision and, if need be, grant_scope."""
        oauth_request = await to_oauth(request)
        username = oauth_request.form.get("username", "")
        fault = self._faults.take("authorize")
        noted = self._note("authorize", "received", username=username, fault=fault and fault.fault)

        async def act() -> web.Response:
            return self.decided(oauth_request, self.user(username), noted)

        return await self._faults.carry_out(fault, request, act)

    def user(self, username: str) -> User | None:
        """The user of that name; a new name is a new user."""
        known = self._ledger.user_named(username)
        return known or (self._ledger.add_user(username, username.capitalize()) if username else None)

    def decided(self, oauth_request: Request, user: User | None, noted: dict[str, Any]) -> web.Response:
        form = oauth_request.form
        if "grant_scope" in form:
            oauth_request.payload.data["scope"] = form["grant_scope"]
        try:
            grant = self._server.get_consent_grant(oauth_request, user)
        except OAuth2Error as error:
            return self.refused(error, noted)
        allowed = user if form.get("decision") == "allow" else None
        oauth_request.user = allowed
        _, _, headers = self._server.create_authorization_response(oauth_request, allowed, grant=grant)
        location = dict(headers)["Location"]
        noted["outcome"] = "allowed" if allowed else "denied"
        return web.Response(
            status=303, headers={"Location": location if allowed else self.denied(location), **pages.HEADERS}
        )

    def refused(self, error: OAuth2Error, noted: dict[str, Any]) -> web.Response:
        """A page, and never a redirect: the request itself is not to be trusted (RFC 6749 section 4.1.2.1)."""
        noted["outcome"] = f"refused: {error.error}"
        return html(pages.refused(self.name, ": ".join(filter(None, (error.error, error.description)))), 400)

    def denied(self, location: str) -> str:
        """Where a user who said no is sent; Authlib says `access_denied`, as X does."""
        return location

    # --- for apps

    async def token(self, request: web.Request) -> web.StreamResponse:
        oauth_request = await to_oauth(request)
        grant_type = oauth_request.form.get("grant_type", "")
        sent = oauth_request.form.get("refresh_token") or oauth_request.form.get("code")
        before = self._ledger.known(sent or "")
        fault = self._faults.take("token", grant_type)
        noted = self._note("token", "received", grant_type=grant_type, sent=sent, fault=fault and fault.fault)
        noted["grant_id"] = before.id if before else None
        noted["secrets"] = [oauth_request.form[name] for name in SENT_SECRETS if name in oauth_request.form]

        async def act() -> web.Response:
            answer = self._server.create_token_response(oauth_request)
            noted["outcome"] = str(answer[0])
            noted["secrets"] += [answer[1][name] for name in GIVEN_SECRETS if name in answer[1]]
            if oauth_request.minted is not None:
                noted["grant_id"] = oauth_request.minted.id
            return to_response(answer)

        return await self._faults.carry_out(fault, request, act)

    async def revoke(self, request: web.Request) -> web.StreamResponse:
        oauth_request = await to_oauth(request)
        fault = self._faults.take("revoke")
        sent = oauth_request.form.get("token")
        noted = self._note("revoke", "received", sent=sent, fault=fault and fault.fault)
        grant = self._ledger.known(sent or "")
        noted["grant_id"] = grant and grant.id

        async def act() -> web.Response:
            answer = self._server.create_endpoint_response("revocation", oauth_request)
            noted["outcome"] = str(answer[0])
            return to_response(answer)

        return await self._faults.carry_out(fault, request, act)

    async def me(self, request: web.Request) -> web.StreamResponse:
        fault = self._faults.take("identity")
        grant = self._ledger.known(bearer(request))
        noted = self._note("identity", "received", fault=fault and fault.fault, grant_id=grant and grant.id)

        async def act() -> web.Response:
            response = self.who(request)
            noted["outcome"] = str(response.status)
            return response

        return await self._faults.carry_out(fault, request, act)

    def who(self, request: web.Request) -> web.Response:
        grant = self._ledger.live_access(bearer(request))
        if grant is None:
            return problem(401, "Unauthorized", "about:blank")
        if not {"users.read", "tweet.read"} <= set(grant.scope.split()):
            return problem(403, "Forbidden", NOT_AUTHORIZED)
        return web.json_response({"data": self._user(grant, request.query.get("user.fields", ""))})

    def _user(self, grant: Grant, fields: str) -> dict[str, str]:
        user = self._ledger.users[grant.user_id]
        found = {"id": user.id, "username": user.username, "name": user.name}
        if "profile_image_url" in fields.split(","):
            found["profile_image_url"] = user.avatar
        return found

    def _note(self, endpoint: str, outcome: str, **facts: Any) -> dict[str, Any]:
        noted = {"time": time.time(), "endpoint": endpoint, "outcome": outcome, **facts}
        self._log.append(noted)
        return noted


def bearer(request: web.Request) -> str:
    """RFC 6750 section 2.1; empty where there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


async def to_oauth(request: web.Request) -> Request:
    form = {name: str(value) for name, value in (await request.post()).items()}
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Request(request.method, str(request.url), headers, dict(request.query), form)


def to_response(answer: Answer) -> web.Response:
    status, body, _ = answer
    text = json.dumps(body if isinstance(body, dict) else dict(body))
    return web.Response(
        status=status, text=text, content_type="application/json", headers={"Cache-Control": "no-store"}
    )


def html(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text, content_type="text/html", headers=pages.HEADERS)


def problem(status: int, title: str, kind: str, detail: str = "") -> web.Response:
    return web.json_response(
        {"title": title, "detail": detail or title, "type": kind, "status": status},
        status=status,
        content_type="application/problem+json",
    )
