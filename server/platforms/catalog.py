"""The platforms that exist. A new one is a file beside this one and a line here."""

from __future__ import annotations

from server.platforms.definition import OAuth2Platform
from server.platforms.linkedin import LINKEDIN
from server.platforms.twitter import TWITTER

PLATFORMS: tuple[OAuth2Platform, ...] = (TWITTER, LINKEDIN)
