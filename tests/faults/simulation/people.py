"""Users and callers of a simulated world: they connect, connect again, revoke here and revoke at the platform."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
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
    climate, rng = world.fate.climate, world.fate.rng
    for _ in range(climate.caller_acts):
        await asyncio.sleep(rng.random() * 2 * world.wild_seconds / climate.caller_acts)
        user = f"u{rng.randrange(climate.accounts)}"
        if rng.random() < 0.3:
            user = (await world.judge.claimed()).user  # in the middle of its refresh
            await asyncio.sleep(rng.random() * 0.5)
        choice = rng.random()
        if choice < 0.3:
            await call(world, "refresh", user, lambda process, user=user: refresh(world, process, user))
        elif choice < 0.65:
            await call(world, "reconnect", user, lambda process, user=user: connect(process, user))
        else:
            await call(world, "revoke", user, lambda process, user=user: revoke(world, process, user))


async def revoke(world: "World", process: "Process", user: str) -> None:
    await process.revoker.revoke(CALLER, account_id(world, user))


async def refresh(world: "World", process: "Process", user: str) -> None:
    """On demand: whatever is left of the access token, or only if it ends within the hour."""
    remaining = world.fate.rng.choice([None, timedelta(hours=1)])
    await process.fresh.refresh(CALLER, account_id(world, user), remaining)


def account_id(world: "World", user: str) -> str:
    row = AccountRow.select().where(AccountRow.platform_user_id == user).get(world.engine.database)
    return str(row.id)
