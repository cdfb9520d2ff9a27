"""SQL of accounts: the two hot reads, and what a consent, a rename or a dead grant changes in them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

from peewee import JOIN, Database, Expression, fn

from server.accounts.events import EventKind
from server.accounts.grants import NewGrant
from server.accounts.model import Account, AccountFilter, Identity, Page, PlatformRevocation, Status, StatusReason
from server.storage.schema import AccountRow, GrantRow
from server.storage.statement import Statements, slot
from server.storage.transaction import Transaction, instant, optional_instant, words

STATUSES = {status.value: status for status in Status}
REASONS = {reason.value: reason for reason in StatusReason}
REVOCATIONS = {revocation.value: revocation for revocation in PlatformRevocation}


def select_accounts(*before: Any) -> Any:
    """Accounts as `to_account` takes them, behind the columns `before`."""
    return AccountRow.select(
        *before,
        AccountRow.id,
        AccountRow.profile_id,
        AccountRow.platform,
        AccountRow.platform_user_id,
        AccountRow.grant_id,
        AccountRow.handle,
        AccountRow.display_name,
        AccountRow.avatar_url,
        AccountRow.scopes,
        AccountRow.missing_scopes,
        AccountRow.status,
        AccountRow.status_reason,
        AccountRow.status_time,
        AccountRow.platform_revocation,
        AccountRow.create_time,
        AccountRow.update_time,
        GrantRow.access_token_expire_time,
        GrantRow.last_refresh_time,
    ).join(GrantRow, JOIN.LEFT_OUTER, on=(AccountRow.grant_id == GrantRow.id))


def to_account(row: Sequence[Any]) -> Account:
    return Account(
        row[0],
        row[1],
        row[2],
        row[3],
        row[4],
        row[5],
        row[6],
        row[7],
        words(row[8]),
        words(row[9]),
        STATUSES[row[10]],
        REASONS[row[11]],
        instant(row[12]),
        REVOCATIONS[row[13]],
        instant(row[14]),
        instant(row[15]),
        optional_instant(row[16]),
        optional_instant(row[17]),
    )


def get(database: Database, statements: Statements, account_id: str) -> Account | None:
    statement = statements.get(
        "account", database, lambda: select_accounts().where(AccountRow.id == slot("account_id"))
    )
    row = statement.run(database, account_id=account_id).fetchone()
    return None if row is None else to_account(row)


def several(database: Database, statements: Statements, account_ids: Sequence[str]) -> tuple[Account, ...]:
    found = (get(database, statements, account_id) for account_id in account_ids)
    return tuple(account for account in found if account is not None)


def list_page(database: Database, statements: Statements, which: AccountFilter, *, after: str, size: int) -> Page:
    """One page by keyset: the index gives the rows after `after`, so each page costs the same."""
    if not which.profile_prefixes or (which.platforms is not None and not which.platforms):
        # Whoever may see nothing gets nothing; it must not share a compiled statement with a list without a filter.
        return Page((), more=False)
    values: dict[str, Any] = {"after": after, "size": size + 1}
    conditions: list[Expression] = [AccountRow.id > slot("after")]
    if which.profile_id is not None:
        conditions.append(AccountRow.profile_id == slot("profile_id"))
        values["profile_id"] = which.profile_id
    if "" not in which.profile_prefixes:
        conditions.append(one_of("prefix", which.profile_prefixes, values, has_prefix))
    if which.platforms is not None:
        conditions.append(one_of("platform", sorted(which.platforms), values, is_platform))
    if which.statuses and len(which.statuses) < len(Status):
        conditions.append(one_of("status", sorted(s.value for s in which.statuses), values, is_status))
    statement = statements.get(
        ("list", *sorted(values)),
        database,
        lambda: select_accounts().where(*conditions).order_by(AccountRow.id).limit(slot("size")),
    )
    rows = statement.run(database, **values).fetchall()
    return Page(accounts=tuple(map(to_account, rows[:size])), more=len(rows) > size)


def one_of(name: str, wanted: Sequence[Any], values: dict[str, Any], matches: Any) -> Any:
    """`matches` for any of the wanted values, each in a slot of its own; nothing matches where none is wanted."""
    names = [f"{name}{number}" for number in range(len(wanted))]
    values.update(zip(names, wanted, strict=True))
    alternatives = [matches(slot(each)) for each in names]
    return reduce(or_, alternatives) if alternatives else AccountRow.id.is_null()


def has_prefix(prefix: Any) -> Any:
    """Not LIKE: it has wildcards to escape, and ignores case in SQLite."""
    return fn.SUBSTR(AccountRow.profile_id, 1, fn.LENGTH(prefix)) == prefix


def is_platform(platform: Any) -> Any:
    return AccountRow.platform == platform


def is_status(status: Any) -> Any:
    return AccountRow.status == status


def attach(tx: Transaction, profile_id: str, platform: str, caller: str, grant: NewGrant) -> tuple[str, ...]:
    """Creates or renews the accounts of a new grant; their ids. A renewed account keeps its id and its place."""
    return tuple(attach_one(tx, profile_id, platform, caller, grant, identity) for identity in grant.identities)


def attach_one(
    tx: Transaction, profile_id: str, platform: str, caller: str, grant: NewGrant, identity: Identity
) -> str:
    same_user = (
        (AccountRow.profile_id == profile_id)
        & (AccountRow.platform == platform)
        & (AccountRow.platform_user_id == identity.platform_user_id)
    )
    known = tx.lock(AccountRow.select().where(same_user))
    shown = {
        "grant_id": grant.id,
        "handle": identity.handle,
        "display_name": identity.display_name,
        "avatar_url": identity.avatar_url,
        "scopes": " ".join(sorted(grant.token_set.scopes)),
        "missing_scopes": " ".join(grant.missing_scopes),
        "status": Status.ACTIVE.value,
        "status_reason": StatusReason.NONE.value,
        "platform_revocation": PlatformRevocation.NONE.value,
        "update_time": tx.now_us,
    }
    if known is None:
        account_id = tx.new_id()
        AccountRow.insert(
            id=account_id,
            profile_id=profile_id,
            platform=platform,
            platform_user_id=identity.platform_user_id,
            status_time=tx.now_us,
            create_time=tx.now_us,
            **shown,
        ).execute(tx.database)
    else:
        account_id = known.id
        since = known.status_time if known.status == Status.ACTIVE.value else tx.now_us
        AccountRow.update(status_time=since, **shown).where(AccountRow.id == account_id).execute(tx.database)
    tx.event(
        EventKind.CONNECTED if known is None else EventKind.RECONNECTED,
        account_id=account_id,
        profile_id=profile_id,
        platform=platform,
        caller=caller,
        handle=identity.handle,
        scopes=sorted(grant.token_set.scopes),
        missing_scopes=list(grant.missing_scopes),
    )
    return account_id


def of_grant(tx: Transaction, grant_id: str) -> list[Any]:
    return tx.lock_all(AccountRow.select().where(AccountRow.grant_id == grant_id))


def expire(tx: Transaction, grant_id: str, reason: StatusReason, error: str, caller: str = "") -> None:
    """The accounts of a dead grant are EXPIRED."""
    for row in of_grant(tx, grant_id):
        if row.status != Status.ACTIVE.value:
            continue
        AccountRow.update(
            status=Status.EXPIRED.value, status_reason=reason.value, status_time=tx.now_us, update_time=tx.now_us
        ).where(AccountRow.id == row.id).execute(tx.database)
        tx.event_of(row, EventKind.EXPIRED, caller=caller, reason=reason.name, error=error)


def update_identity(tx: Transaction, grant_id: str, identity: Identity) -> bool:
    """Stores what is shown of the user, if it differs; says whether it did."""
    changed = False
    for row in of_grant(tx, grant_id):
        shown = (identity.handle, identity.display_name, identity.avatar_url)
        if row.platform_user_id != identity.platform_user_id or shown == (row.handle, row.display_name, row.avatar_url):
            continue
        AccountRow.update(
            handle=identity.handle,
            display_name=identity.display_name,
            avatar_url=identity.avatar_url,
            update_time=tx.now_us,
        ).where(AccountRow.id == row.id).execute(tx.database)
        tx.event_of(row, EventKind.IDENTITY_CHANGED, handle=identity.handle, earlier_handle=row.handle)
        changed = True
    return changed


def update_scopes(tx: Transaction, grant_id: str, scopes: Sequence[str]) -> None:
    """The platform granted other scopes at a refresh; what was asked for and is gone becomes missing."""
    for row in of_grant(tx, grant_id):
        asked = {*words(row.scopes), *words(row.missing_scopes)}
        AccountRow.update(
            scopes=" ".join(sorted(scopes)),
            missing_scopes=" ".join(sorted(asked - set(scopes))),
            update_time=tx.now_us,
        ).where(AccountRow.id == row.id).execute(tx.database)
        tx.event_of(row, EventKind.SCOPES_CHANGED, scopes=sorted(scopes))
