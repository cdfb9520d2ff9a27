"""X. OAuth 2.0 with PKCE: access tokens live two hours, a refresh token works once."""

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
    RateLimitHeaders,
    Refusal,
    Rotation,
    Scopes,
    needs,
    required_text,
)


def read_identity(body: Mapping[str, Any]) -> Identity:
    """`GET /2/users/me`; the numeric `id` never changes, `username` can."""
    user = body["data"]
    return Identity(
        platform_user_id=required_text(user["id"]),
        handle=required_text(user["username"]),
        display_name=user.get("name") or "",
        avatar_url=user.get("profile_image_url") or "",
    )


DONE_AND_TAKEN_BACK = {
    "likes": "like.write",
    "bookmarks": "bookmark.write",
    "following": "follows.write",
    "muting": "mute.write",
    "blocking": "block.write",
}
"""What users do to posts and to other users, by its name in paths, with the scope that it needs."""


def done_and_taken_back(name: str, scope: str) -> Scopes:
    routes = [f"POST /2/users/{{id}}/{name}", f"DELETE /2/users/{{id}}/{name}/{{target_id}}"]
    return needs(scope, "tweet.read", "users.read", routes=routes)


# Source: docs.x.com, fundamentals/authentication/guides/v2-authentication-mapping and fundamentals/rate-limits.
API = ApiRules(
    response_headers=frozenset({"x-transaction-id", "api-version"}),
    rate_limits=(
        RateLimitHeaders("x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset"),
        RateLimitHeaders("x-user-limit-24hour-limit", "x-user-limit-24hour-remaining", "x-user-limit-24hour-reset"),
        RateLimitHeaders(
            "x-app-limit-24hour-limit", "x-app-limit-24hour-remaining", "x-app-limit-24hour-reset", of_app=True
        ),
    ),
    scopes=(
        *needs(
            "tweet.read",
            "tweet.write",
            "users.read",
            routes=[
                "POST /2/tweets",
                "DELETE /2/tweets/{id}",
                "POST /2/users/{id}/retweets",
                "DELETE /2/users/{id}/retweets/{tweet_id}",
            ],
        ),
        *needs("tweet.moderate.write", "tweet.read", "users.read", routes=["PUT /2/tweets/{id}/hidden"]),
        *needs(
            "users.read",
            "tweet.read",
            routes=[
                "GET /2/users/me",
                # Each has limits of its own: with the id of a user they have nothing in common.
                "GET /2/users/by",
                "GET /2/users/search",
                "GET /2/users/reposts_of_me",
                "GET /2/users/personalized_trends",
                "GET /2/users/{id}",
                "GET /2/users",
            ],
        ),
        *needs(
            "tweet.read",
            "users.read",
            routes=["GET /2/tweets", "GET /2/tweets/{id}", "GET /2/users/{id}/tweets", "GET /2/users/{id}/mentions"],
        ),
        *needs(
            "media.write",
            routes=[
                "POST /2/media/upload",
                "POST /2/media/upload/initialize",
                "POST /2/media/upload/{id}/append",
                "POST /2/media/upload/{id}/finalize",
                "POST /2/media/metadata",
                "POST /2/media/subtitles",
                "DELETE /2/media/subtitles",
            ],
        ),
        *(each for name, scope in DONE_AND_TAKEN_BACK.items() for each in done_and_taken_back(name, scope)),
        *needs("like.read", "tweet.read", "users.read", routes=["GET /2/users/{id}/liked_tweets"]),
        *needs("bookmark.read", "tweet.read", "users.read", routes=["GET /2/users/{id}/bookmarks"]),
        *needs("follows.read", "users.read", routes=["GET /2/users/{id}/followers", "GET /2/users/{id}/following"]),
        *needs(
            "list.write",
            "tweet.read",
            "users.read",
            routes=[
                "POST /2/lists",
                "PUT /2/lists/{id}",
                "DELETE /2/lists/{id}",
                "POST /2/lists/{id}/members",
                "DELETE /2/lists/{id}/members/{user_id}",
                "POST /2/users/{id}/followed_lists",
                "DELETE /2/users/{id}/followed_lists/{list_id}",
                "POST /2/users/{id}/pinned_lists",
                "DELETE /2/users/{id}/pinned_lists/{list_id}",
            ],
        ),
        *needs("dm.read", "tweet.read", "users.read", routes=["GET /2/dm_events"]),
        *needs(
            "dm.write",
            "tweet.read",
            "users.read",
            routes=[
                "POST /2/dm_conversations",
                "POST /2/dm_conversations/with/{user_id}/messages",
                "POST /2/dm_conversations/{id}/messages",
                "DELETE /2/dm_events/{id}",
                "POST /2/users/{id}/dm/block",
                "POST /2/users/{id}/dm/unblock",
            ],
        ),
    ),
)

# Source: docs.x.com, fundamentals/authentication/oauth-2-0 and x-api/users/lookup.
TWITTER = OAuth2Platform(
    id="twitter",
    display_name="X",
    authorization_endpoint="https://x.com/i/oauth2/authorize",
    token_endpoint="https://api.x.com/2/oauth2/token",  # noqa: S106 (an address)
    revocation_endpoint="https://api.x.com/2/oauth2/revoke",
    identity_endpoint="https://api.x.com/2/users/me",
    identity_query="user.fields=profile_image_url",
    api_base="https://api.x.com",
    default_scopes=("tweet.read", "tweet.write", "users.read", "offline.access"),
    # Both read scopes are needed by /2/users/me; without offline.access there is no refresh token.
    required_scopes=("users.read", "tweet.read", "offline.access"),
    allowed_scopes=frozenset(
        {
            "tweet.read",
            "tweet.write",
            "tweet.moderate.write",
            "users.read",
            "users.email",
            "follows.read",
            "follows.write",
            "offline.access",
            "space.read",
            "mute.read",
            "mute.write",
            "like.read",
            "like.write",
            "list.read",
            "list.write",
            "block.read",
            "block.write",
            "bookmark.read",
            "bookmark.write",
            "media.write",
            "dm.read",
            "dm.write",
        }
    ),
    code_lifetime=timedelta(seconds=30),
    client_auth=ClientAuth.BASIC,  # the secret in the body is refused with 401
    pkce=Pkce.S256,  # X requires it, of confidential clients as well
    rotation=Rotation.SINGLE_USE,
    # X has no invalid_grant; other texts of invalid_request are faults of our request. Clients' tests expect both.
    dead_grant=(Refusal(400, "invalid_request", "Value passed for the token was invalid."), INVALID_GRANT),
    refused_code=(
        Refusal(400, "invalid_request", "Value passed for the authorization code was invalid."),
        INVALID_GRANT,
    ),
    default_access_token_lifetime=timedelta(hours=2),
    identity_interval=timedelta(days=30),  # each read costs $0.010
    read_identity=read_identity,
    api=API,
)
