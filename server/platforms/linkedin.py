"""LinkedIn, for members. Access tokens live sixty days, and mostly there is no refresh token."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from server.accounts.model import Identity
from server.platforms.definition import (
    INVALID_GRANT,
    ApiRules,
    ClientAuth,
    OAuth2Platform,
    Pkce,
    Rotation,
    needs,
    required_text,
)


def read_identity(body: Mapping[str, Any]) -> Identity:
    """`GET /v2/userinfo` (OpenID Connect); `sub` never changes. Members have no handle there."""
    return Identity(
        platform_user_id=required_text(body["sub"]),
        handle="",
        display_name=body.get("name") or "",
        avatar_url=body.get("picture") or "",
    )


# Source: learn.microsoft.com, linkedin/marketing/versioning and community-management/shares/posts-api. LinkedIn tells
# of its limits by 429 alone, after the fact.
API = ApiRules(
    request_headers=frozenset({"linkedin-version", "x-restli-protocol-version"}),
    response_headers=frozenset({"x-restli-id", "x-restli-protocol-version", "x-li-uuid", "x-linkedin-id"}),
    scopes=(
        *needs(
            "w_member_social",
            routes=[
                "POST /rest/posts",
                "POST /rest/posts/{urn}",
                "DELETE /rest/posts/{urn}",
                "POST /v2/ugcPosts",
                "DELETE /v2/ugcPosts/{urn}",
                "POST /v2/shares",
                "DELETE /v2/shares/{id}",
                "POST /rest/images",
                "POST /rest/videos",
                "POST /rest/documents",
                "POST /v2/assets",
                "POST /rest/reactions",
                *(
                    route
                    for version in ("rest", "v2")
                    for route in (
                        f"POST /{version}/socialActions/{{urn}}/comments",
                        f"POST /{version}/socialActions/{{urn}}/comments/{{id}}",
                        f"DELETE /{version}/socialActions/{{urn}}/comments/{{id}}",
                        f"POST /{version}/socialActions/{{urn}}/likes",
                        f"DELETE /{version}/socialActions/{{urn}}/likes/{{actor}}",
                    )
                ),
            ],
        ),
        *needs("openid", "profile", routes=["GET /v2/userinfo"]),
    ),
    path_characters=":",  # of URNs: /rest/posts/urn:li:share:1
)

# Source: learn.microsoft.com, linkedin/shared/authentication/authorization-code-flow and programmatic-refresh-tokens,
# and sign-in-with-linkedin-v2.
LINKEDIN = OAuth2Platform(
    id="linkedin",
    display_name="LinkedIn",
    authorization_endpoint="https://www.linkedin.com/oauth/v2/authorization",
    token_endpoint="https://www.linkedin.com/oauth/v2/accessToken",  # noqa: S106 (an address)
    # Used by many clients, though the documentation does not name it.
    revocation_endpoint="https://www.linkedin.com/oauth/v2/revoke",
    identity_endpoint="https://api.linkedin.com/v2/userinfo",
    api_base="https://api.linkedin.com",
    default_scopes=("openid", "profile", "w_member_social"),
    required_scopes=("openid", "profile"),
    allowed_scopes=frozenset({"openid", "profile", "email", "r_basicprofile", "w_member_social"}),
    code_lifetime=timedelta(minutes=30),
    client_auth=ClientAuth.POST,  # Basic is not supported
    # A code_verifier beside a client_secret is answered with invalid_client; PKCE exists only on the native endpoint,
    # without a secret (the flow's page, "native PKCE").
    pkce=Pkce.OFF,
    rotation=Rotation.NONE,  # partners' refresh tokens live a year from the consent and stay the same
    dead_grant=(INVALID_GRANT,),
    refused_code=(INVALID_GRANT,),
    default_access_token_lifetime=timedelta(days=60),
    identity_interval=timedelta(days=7),
    read_identity=read_identity,
    api=API,
    denied_errors=frozenset({"access_denied", "user_cancelled_login", "user_cancelled_authorize"}),
)
