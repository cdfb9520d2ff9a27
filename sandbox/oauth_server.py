"""The OAuth server: Authlib's framework-free AuthorizationServer over aiohttp, with X's rules and error texts.

PKCE, codes, client authentication and revocation are Authlib's; ours is the ledger behind them, with rotation and
replay detection.
"""

from __future__ import annotations

import base64
import os
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from authlib.oauth2.rfc6749 import AuthorizationServer, OAuth2Error, OAuth2Request
from authlib.oauth2.rfc6749.errors import InvalidGrantError, InvalidRequestError, UnauthorizedClientError
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, RefreshTokenGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge

from sandbox.ledger import App, Code, Grant, Ledger, User, marked

# It is served over plain http, on loopback alone.
os.environ.setdefault("AUTHLIB_INSECURE_TRANSPORT", "1")

Answer = tuple[int, Any, list[tuple[str, str]]]

BAD_TOKEN = "Value passed for the token was invalid."
BAD_CODE = "Value passed for the authorization code was invalid."


class Request(OAuth2Request):  # type: ignore[misc]
    """A request as Authlib wants it."""

    def __init__(
        self, method: str, uri: str, headers: Mapping[str, str], query: dict[str, str], form: dict[str, str]
    ) -> None:
        super().__init__(method, uri, None, headers)
        self._query, self._form = query, form
        self.payload = BasicOAuth2Payload({**query, **form})
        self.minted: Grant | None = None

    @property
    def args(self) -> dict[str, str]:
        return self._query

    @property
    def form(self) -> dict[str, str]:
        return self._form


class XChallenge(CodeChallenge):  # type: ignore[misc]
    """PKCE with S256 for all apps, confidential ones too. Left out, the method would be `plain` (RFC 7636 4.3)."""

    def validate_code_challenge(self, grant: Any, redirect_uri: str | None) -> None:
        data = grant.request.payload.data
        if not data.get("code_challenge"):
            raise InvalidRequestError("Missing 'code_challenge'")
        if data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("The 'code_challenge_method' must be S256")
        super().validate_code_challenge(grant, redirect_uri)


class XCodeGrant(AuthorizationCodeGrant):  # type: ignore[misc]
    """The code grant: thirty seconds, one use; a used code takes back what it gave."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)

    def generate_authorization_code(self) -> str:
        return marked("code")

    def save_authorization_code(self, code: str, request: Request) -> None:
        ledger, data = self.server.ledger, request.payload.data
        ledger.codes[code] = Code(
            code=code,
            client_id=request.client.client_id,
            redirect_uri=request.payload.redirect_uri,
            scope=request.payload.scope,
            user_id=request.user.id,
            code_challenge=data["code_challenge"],
            code_challenge_method=data.get("code_challenge_method", "plain"),
            expires=time.time() + ledger.settings.code_seconds,
        )

    def query_authorization_code(self, code: str, client: App) -> Code | None:
        ledger = self.server.ledger
        found = ledger.codes.get(code)
        if found is None or found.client_id != client.client_id:
            return None
        if found.grant_id is not None:
            ledger.kill(ledger.grants[found.grant_id])
            return None
        return found if found.expires > time.time() else None

    def delete_authorization_code(self, authorization_code: Code) -> None:
        authorization_code.grant_id = self.request.minted.id

    def authenticate_user(self, authorization_code: Code) -> User:
        return self.server.ledger.users[authorization_code.user_id]


class XRefreshGrant(RefreshTokenGrant):  # type: ignore[misc]
    """The refresh grant: each refresh token works once."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> Grant | None:
        return self.server.ledger.present(refresh_token)

    def authenticate_user(self, refresh_token: Grant) -> User:
        return self.server.ledger.users[refresh_token.user_id]

    def revoke_old_credential(self, refresh_token: Grant) -> None:
        self.server.ledger.spend(refresh_token, self.request.form["refresh_token"])


class XRevocation(RevocationEndpoint):  # type: ignore[misc]
    """RFC 7009."""

    CLIENT_AUTH_METHODS = ("client_secret_basic",)

    def query_token(self, token_string: str, token_type_hint: str | None) -> Grant | None:
        return self.server.ledger.known(token_string)

    def revoke_token(self, token: Grant, request: Request) -> None:
        self.server.ledger.revoke(request.form["token"])


class XServer(AuthorizationServer):  # type: ignore[misc]
    """X's authorization server over a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.register_token_generator("default", self._token)
        self.register_client_auth_method("client_secret_basic", basic_auth)
        self.register()

    def register(self) -> None:
        """The grants and endpoints that the platform has."""
        self.register_grant(XCodeGrant, [XChallenge(required=True)])
        self.register_grant(XRefreshGrant)
        self.register_endpoint(XRevocation)

    def query_client(self, client_id: str) -> App | None:
        return self.ledger.apps.get(client_id)

    def save_token(self, token: dict[str, Any], request: Request) -> None:
        grant = request.refresh_token
        if grant is None:
            grant = Grant(secrets.token_hex(8), request.client.client_id, request.user.id, token["scope"])
        request.minted = grant
        self.ledger.issue(grant, token)

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        return None

    def create_oauth2_request(self, request: Request) -> Request:
        return request

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Answer:
        return status, body, headers

    def handle_error_response(self, request: Request, error: OAuth2Error) -> Answer:
        return self.handle_response(*as_x_says(request, error)())

    def _token(self, *, scope: str, include_refresh_token: bool = True, **_: Any) -> dict[str, Any]:
        token = {
            "token_type": "bearer",
            "expires_in": self.ledger.settings.access_token_seconds,
            "access_token": marked("at"),
            "scope": scope,
        }
        if include_refresh_token and "offline.access" in scope.split():
            token["refresh_token"] = marked("rt")
        return token


def basic_auth(query_client: Any, request: Request) -> App | None:
    """RFC 6749 section 2.3.1: id and secret are form-encoded, which Authlib's own method leaves out."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    try:
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return None
    app = query_client(unquote_plus(client_id)) if scheme.lower() == "basic" else None
    return app if app and app.check_client_secret(unquote_plus(secret)) else None


def as_x_says(request: Request, error: OAuth2Error) -> OAuth2Error:
    """The error in X's words."""
    if error.error == "invalid_client":
        return UnauthorizedClientError("Missing valid authorization header", status_code=401)
    if isinstance(error, InvalidGrantError):
        refresh = request.form.get("grant_type") == "refresh_token"
        return InvalidRequestError(BAD_TOKEN if refresh else BAD_CODE)
    return error
