"""What attacks are tried on: the domain as its own tests have it, and the whole service over SQLite."""

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from yarl import URL

from server.accounts.limits import Pace
from tests.accounts.conftest import house
from tests.e2e.conftest import PROFILE, Whole, whole_service

__all__ = ["house"]

Get = Callable[..., Any]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Whole]:
    """The whole service in this process beside the sandbox; its jobs run when the test says so."""
    async with whole_service(tmp_path / "deployment") as whole:
        yield whole


@pytest.fixture
async def get(service: Whole) -> AsyncIterator[Get]:
    """Sends a path as it is written, as often as it likes: the rate of all browsers together is another test's."""
    service.app.web._callbacks = Pace(1e9, time.monotonic)
    async with aiohttp.ClientSession() as session:

        async def get(path: str, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
            url = URL(f"{service.local.public_url}{path}", encoded=True)
            async with session.request(method, url, allow_redirects=False, headers=headers) as response:
                return response.status, response.headers, await response.read()

        yield get


async def begun(service: Whole, return_url: str | None = None) -> str:
    """The state of a connect that has begun."""
    begun = await service.accounts.begin_connect(PROFILE, "twitter", return_url=return_url or service.return_url)
    return parse_qs(urlsplit(begun.authorization_url).query)["state"][0]
