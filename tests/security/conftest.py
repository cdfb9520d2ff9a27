"""The domain put together, as its own tests have it, for attacks on it."""

from tests.accounts.conftest import house

__all__ = ["house"]
