"""Writes what watchers are told as bytes: what is alike for many of them is encoded once."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from synposter.accounts.v1 import account_service_pb2 as pb

from server.accounts.changes import Change
from server.accounts.events import EventKind
from server.accounts.news import Heartbeat, Listing, News, WatchPlace
from server.rpc.messages import Encoded, write_account, write_time

KINDS: Final = {
    EventKind.CONNECTED: pb.ACCOUNT_CHANGE_KIND_CONNECTED,
    EventKind.RECONNECTED: pb.ACCOUNT_CHANGE_KIND_RECONNECTED,
    EventKind.IDENTITY_CHANGED: pb.ACCOUNT_CHANGE_KIND_IDENTITY_CHANGED,
    EventKind.SCOPES_CHANGED: pb.ACCOUNT_CHANGE_KIND_SCOPES_CHANGED,
    EventKind.EXPIRED: pb.ACCOUNT_CHANGE_KIND_EXPIRED,
    EventKind.EXPIRING_SOON: pb.ACCOUNT_CHANGE_KIND_EXPIRING_SOON,
    EventKind.REVOKED: pb.ACCOUNT_CHANGE_KIND_REVOKED,
    EventKind.ACCOUNT_ERASED: pb.ACCOUNT_CHANGE_KIND_DELETED,
}
HEARTBEAT: Final = pb.WatchAccountsResponse(heartbeat=pb.Heartbeat()).SerializeToString()


def place_of(news: News) -> WatchPlace:
    return news.place if isinstance(news, Listing) else WatchPlace(news.mark)


def told(news: News, resume_token: str) -> Encoded:
    """Encoded messages of one type that follow each other are read as one, with the fields of both."""
    match news:
        case Change():
            return change(news, resume_token)
        case Heartbeat():
            return Encoded(HEARTBEAT + token(resume_token))
        case Listing():
            return Encoded(listing(news) + token(resume_token), tuple(account.id for account in news.accounts))


def token(resume_token: str) -> bytes:
    return pb.WatchAccountsResponse(resume_token=resume_token).SerializeToString()


def listing(news: Listing) -> bytes:
    message = pb.WatchAccountsResponse()
    message.listing.complete = news.complete
    for account in news.accounts:
        write_account(message.listing.accounts.add(), account)
    return message.SerializeToString()


@lru_cache(256)
def change(news: Change, resume_token: str) -> Encoded:
    """Those of one caller who watch the same are told the same."""
    return Encoded(change_alone(news) + token(resume_token), (news.account_id,))


@lru_cache(256)
def change_alone(news: Change) -> bytes:
    message = pb.WatchAccountsResponse()
    into = message.change
    into.kind = KINDS[EventKind(news.kind)]
    into.account_id = news.account_id
    into.status_reason = news.reason.value  # type: ignore[assignment]  # the model's values are the proto's numbers
    write_time(into.change_time, news.time)
    if news.account is not None:
        write_account(into.account, news.account)
    return message.SerializeToString()
