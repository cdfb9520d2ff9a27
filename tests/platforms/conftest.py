"""What the tests of platforms share: a sender, and plain http allowed, as app.py allows it for loopback."""

from collections.abc import AsyncIterator

import pytest

from server.platforms.http import Sender


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    sender = Sender()
    yield sender
    await sender.close()


@pytest.fixture(autouse=True)
def insecure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
