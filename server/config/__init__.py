"""Settings: a TOML file plus environment variables `ACCOUNTS_SECTION__KEY`, which win; all problems are named at once.

The keys are a contract; config.example.toml explains them. It may import `server.accounts`, pydantic, pydantic-settings
and the standard library.
"""

from server.config.reader import ConfigError, caller_problems, load
from server.config.settings import SANDBOX_IDENTITY_INTERVAL, CallerSettings, Platform, Settings, Tls
from server.config.text import to_text
from server.config.values import ALL, split_address

__all__ = [
    "ALL",
    "SANDBOX_IDENTITY_INTERVAL",
    "CallerSettings",
    "ConfigError",
    "Platform",
    "Settings",
    "Tls",
    "caller_problems",
    "load",
    "split_address",
    "to_text",
]
