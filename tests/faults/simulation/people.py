"""Users and callers of a simulated world: they connect, connect again, revoke here and revoke at the platform."""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from server.accounts.flow import AuthorizationResponse
from server.accounts.model import Account, Secret
from server.storage.schema import AccountRow
from tests.accounts.script import CALLER

if TYPE_CHECKING:
    from tests.faults.simulation.process import Process
    from tests.faults.simulation.world import World

REDIRECT_URI = "https://app.test/callback"


async def connect(process: "Process", user: str) -> tuple[Account, ...]:
    begun = await process.connector.begin(
        CALLER,
        profile_id=f"profile of {user}",
        platform="twitter",
        scopes=(),
        return_url=None,
        redirect_uri=REDIRECT_URI,
        account_id=None,
    )
    state = parse_qs(urlsplit(begun.authorization_url).query)["state"][0]
    return await process.connector.complete(
        CALLER,
        profile_id=f"profile of {user}",
        completion_code=None,
        response=AuthorizationResponse(Secret(state), Secret(user)),
    )


async def call(world: "World", what: str, user: str, work: Any) -> bool:
    """One call of a caller to some running process; whether it succeeded. A process that dies takes its calls along."""
    running = world.running()
    if not running:
        return False
    process = world.fate.rng.choice(running)
    made: Coroutine[Any, Any, Any] = work(process)
    task = process.spawn(made)
    await asyncio.wait({task})
    failure = "the process died" if task.cancelled() else task.exception()
    world.judge.note(f"{what} by {process.owner}: {failure or 'done'}", user=user)
    return failure is None


async def connect_everybody(world: "World") -> None:
    for number in range(world.fate.climate.accounts):
        user = f"u{number}"
        connected = False
        while not connected:
            await asyncio.sleep(world.fate.rng.random() * 60)
            connected = await call(world, "connect", user, lambda process, user=user: connect(process, user))
        await asyncio.sleep(world.fate.rng.random() * world.life_seconds / 10)


async def revoke_at_the_platform(world: "World") -> None:
    """Users take grants back where they gave them."""
    rng = world.fate.rng
    for _ in range(world.fate.climate.user_revokes):
        await asyncio.sleep(rng.random() * world.wild_seconds / world.fate.climate.user_revokes)
        grant = rng.choice(world.ledger.grants)
        world.judge.note("the user takes it back at the platform", grant)
        grant.end("the user")


async def act_for_callers(world: "World") -> None:
    """Callers revoke accounts, and users connect again: those that are well, expired or revoked."""
    rng = world.fate.rng
    for _ in range(world.fate.climate.caller_acts):
        await asyncio.sleep(rng.random() * 2 * world.wild_seconds / world.fate.climate.caller_acts)
        if rng.random() < 0.5:
            user = f"u{rng.randrange(world.fate.climate.accounts)}"
            await call(world, "reconnect", user, lambda process, user=user: connect(process, user))
        else:
            rows = list(AccountRow.select().order_by(AccountRow.id).execute(world.engine.database))
            row = rng.choice(rows)
            user = row.platform_user_id
            await call(world, "revoke", user, lambda process, row=row: process.revoker.revoke(CALLER, row.id))
