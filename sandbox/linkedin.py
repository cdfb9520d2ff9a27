"""LinkedIn, as the sandbox plays it: the secret in the body, no PKCE, commas in the reply, sixty days, no refresh."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from aiohttp import web
from authlib.oauth2.rfc6749 import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidClientError

from sandbox.ledger import App, Code, Ledger, marked
from sandbox.oauth_server import Answer, Request, XCodeGrant, XRevocation, XServer
from sandbox.x import X, bearer

SIXTY_DAYS = 60 * 24 * 3600


class LinkedInCodeGrant(XCodeGrant):
    """Its codes are bound to nothing: sending a verifier with the secret is a mistake."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_post",)

    def save_authorization_code(self, code: str, request: Request) -> None:
        request.payload.data.setdefault("code_challenge", "")
        super().save_authorization_code(code, request)

    def query_authorization_code(self, code: str, client: App) -> Code | None:
        if "code_verifier" in self.request.form:
            raise InvalidClientError("Client authentication failed", status_code=401)
        return super().query_authorization_code(code, client)


class LinkedInRevocation(XRevocation):
    CLIENT_AUTH_METHODS = ("client_secret_post",)


class LinkedInServer(XServer):
    """Without refresh tokens, as for all but approved partners."""

    def register(self) -> None:
        self.register_grant(LinkedInCodeGrant)
        self.register_endpoint(LinkedInRevocation)

    def handle_error_response(self, request: Request, error: OAuth2Error) -> Answer:
        return self.handle_response(*error())

    def _token(self, *, scope: str, **_: Any) -> dict[str, Any]:
        return {
            "access_token": marked("at"),
            "expires_in": SIXTY_DAYS,
            "scope": ",".join(scope.split()),
            "token_type": "Bearer",
        }


class LinkedIn(X):
    """X's endpoints at LinkedIn's paths, with its words."""

    name = "LinkedIn"

    def make_server(self, ledger: Ledger) -> XServer:
        return LinkedInServer(ledger)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/oauth/v2/authorization", self.ask, allow_head=False),
            web.post("/oauth/v2/authorization", self.decide),
            web.post("/oauth/v2/accessToken", self.token),
            web.post("/oauth/v2/revoke", self.revoke),
            web.get("/v2/userinfo", self.me, allow_head=False),
        ]

    def denied(self, location: str) -> str:
        """A no has a name of its own here."""
        parts = urlsplit(location)
        query = dict(parse_qsl(parts.query)) | {"error": "user_cancelled_authorize"}
        return urlunsplit(parts._replace(query=urlencode(query)))

    def who(self, request: web.Request) -> web.Response:
        grant = self._ledger.live_access(bearer(request))
        if grant is None:
            body = {"status": 401, "serviceErrorCode": 65601, "code": "REVOKED_ACCESS_TOKEN", "message": "revoked"}
            return web.json_response(body, status=401)
        user = self._ledger.users[grant.user_id]
        return web.json_response({"sub": f"li-{user.id}", "name": user.name, "picture": user.avatar})
