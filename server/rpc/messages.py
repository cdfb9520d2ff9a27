"""Writes the domain's nouns into messages.

Written for speed: an account set field by field into its place in the response takes 4.5 us, made by keyword and then
copied 6.5 us, and with datetimes left to protobuf 16 us.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from synposter.accounts.v1.connected_account_pb2 import ConnectedAccount

from server.accounts.model import Account

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Encoded(NamedTuple):
    """A response as bytes, and the accounts that it shows."""

    raw: bytes
    account_ids: tuple[str, ...] = ()


def write_account(into: ConnectedAccount, account: Account) -> None:
    """Sets all the fields of an empty message."""
    into.id = account.id
    into.profile_id = account.profile_id
    into.platform = account.platform
    into.handle = account.handle
    into.status = account.status.value  # type: ignore[assignment]  # the model's values are the proto's numbers
    into.scopes.extend(account.scopes)
    into.missing_scopes.extend(account.missing_scopes)
    into.platform_user_id = account.platform_user_id
    into.display_name = account.display_name
    into.avatar_url = account.avatar_url
    into.status_reason = account.status_reason.value  # type: ignore[assignment]
    write_time(into.status_time, account.status_time)
    if account.access_token_expire_time is not None:
        write_time(into.access_token_expire_time, account.access_token_expire_time)
    if account.last_refresh_time is not None:
        write_time(into.last_refresh_time, account.last_refresh_time)
    write_time(into.create_time, account.create_time)
    write_time(into.update_time, account.update_time)


def write_time(into: Timestamp, moment: datetime) -> None:
    """Sets an empty timestamp to an aware datetime, in integers: a float would lose microseconds."""
    since = moment - EPOCH
    into.seconds = since.days * 86400 + since.seconds
    into.nanos = since.microseconds * 1000
