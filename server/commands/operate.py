"""What the operators' commands do beside a running server: each returns the lines to print."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from server.accounts.chain import ChainPlace
from server.accounts.events import EventKind
from server.accounts.grants import Commit
from server.accounts.unread import Reading, UnreadReader
from server.config import ConfigError, Settings
from server.storage.transaction import instant, micros

TAIL_SHOWN = 20
LINKED_WITHIN = timedelta(minutes=1)
"""A running server links every second."""
OUTCOMES = {
    Commit.STORED: "stored; it is refreshed at once",
    Commit.LOST: "too late: the grant has newer tokens or is dead; nothing of it is left live",
    Commit.REVOKING: "the account was revoked; these tokens are revoked as well",
}


async def platforms(settings: Settings) -> list[str]:
    """A line for each platform that this version knows."""
    from server.parts import DEFINITIONS, store_without_keys  # noqa: PLC0415 (imports the whole server)

    async with store_without_keys(settings) as store:
        pauses = {pause.platform: pause for pause in await store.pauses() if pause.reason}
    rows = [("PLATFORM", "NAME", "STATE")]
    for name, definition in sorted(DEFINITIONS.items()):
        state = "registered" if name in settings.platforms else "not registered in this configuration"
        if name in pauses:
            pause = pauses[name]
            state = f"paused by {pause.operator} at {shown(pause.time)}: {pause.reason}"
        rows.append((name, definition.display_name, state))
    return list(columns(rows))


async def set_pause(settings: Settings, platform: str, reason: str) -> None:
    """Raises ConfigError for a platform that is not registered."""
    from server.parts import store_without_keys  # noqa: PLC0415

    check_registered(settings, platform)
    async with store_without_keys(settings) as store:
        await store.set_pause(platform, reason=reason, operator=operator())


def check_registered(settings: Settings, platform: str) -> None:
    """Raises ConfigError for a platform that is not registered."""
    if platform not in settings.platforms:
        registered = ", ".join(sorted(settings.platforms))
        raise ConfigError([f"{platform} is not registered in this configuration; registered: {registered}"])


async def unread(settings: Settings, *, read_again: bool) -> list[str]:
    """A line for each grant with unread replies; with `read_again`, what became of those that can be read."""
    from server.parts import registered_platforms, store_beside  # noqa: PLC0415
    from server.platforms.http import Sender  # noqa: PLC0415

    async with store_beside(settings) as store:
        reader = UnreadReader(store, registered_platforms(settings, Sender(), store.clock))
        readings = await reader.look()
        if not readings:
            return ["there are no unread answers"]
        done = {}
        if read_again and (readable := sum(each.token_set is not None for each in readings)):
            await store.operate(EventKind.REPLIES_READ_AGAIN, operator=operator(), count=readable)
            done = await reader.apply()
    rows = [("GRANT", "PLATFORM", "STATE", "CHARACTERS", "THIS VERSION")]
    rows += [(r.grant_id, r.platform, r.state.value, " ".join(map(str, r.sizes)), told(r, done)) for r in readings]
    return list(columns(rows))


def operator() -> str:
    """Who runs the command, as the system knows it: LOGNAME and USER are whatever he likes.

    Whom sudo names is told beside it; containers may run as a user that has no name.
    """
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    claimed = os.environ.get("SUDO_USER", "")
    return f"{name} (sudo by {claimed})" if re.fullmatch(r"[A-Za-z0-9._-]{1,32}", claimed) else name


async def verify_audit(settings: Settings, head: str | None) -> tuple[list[str], bool]:
    """What a walk over the audit's hash chain found, and whether the chain is whole. Raises ConfigError."""
    from server.parts import store_without_keys  # noqa: PLC0415

    noted = None if head is None else to_place(head)
    async with store_without_keys(settings) as store:
        report = await store.verify_chain(noted)
        late = micros(await store.now() - LINKED_WITHIN)
    if report.broken is None:
        linked = report.head.position - report.start.position
        lines = [f"the chain is whole: {linked} events are linked; the personal part of {report.redacted} is erased"]
    else:
        event = f" (event {report.broken.event_id})" if report.broken.event_id else ""
        lines = [f"BROKEN at position {report.broken.position}{event}: {report.broken.problem}"]
    begins = "at its first event" if report.start.position == 0 else f"after position {report.start.position}"
    since = "" if report.first_time is None else f", at {shown(instant(report.first_time))}"
    lines += [f"begins: {begins}{since}"]
    lines += [f"head: {report.head.position}:{report.head.link}", f"not linked yet: {len(report.tail)}"]
    if report.tail and report.tail[0].time < late:
        lines.append("  older than a minute, so no server has linked them; one that runs does, and nothing is broken")
    for each in report.tail[:TAIL_SHOWN]:
        time = shown(instant(each.time))
        lines.append(f"  {time}  {each.id}  {each.kind}  {each.account_id or ''}".rstrip())
    return lines, report.broken is None


def to_place(head: str) -> ChainPlace:
    position, _, link = head.partition(":")
    if not position.isdigit() or not re.fullmatch("[0-9a-f]{64}", link):
        raise ConfigError(["--head: POSITION:LINK, as `audit verify` prints it"])
    return ChainPlace(int(position), link)


def told(reading: Reading, done: dict[str, Commit]) -> str:
    if reading.grant_id in done:
        return OUTCOMES[done[reading.grant_id]]
    return "cannot read it" if reading.token_set is None else "can read it; store it with --read-again"


def columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
