"""What attacks are tried on: the domain as its own tests have it, and the whole service over SQLite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.accounts.conftest import house
from tests.e2e.conftest import Whole, whole_service

__all__ = ["house"]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Whole]:
    """The whole service in this process beside the sandbox; its jobs run when the test says so."""
    async with whole_service(tmp_path / "deployment") as whole:
        yield whole
