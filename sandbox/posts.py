"""What users have at the platform beside their grants: posts, uploaded media, and how often they may ask."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

FIRST_ID = 1_990_000_000_000_000_000
"""Ids are as long as X's."""


@dataclass
class Post:
    """A post that is public: the platform has taken it."""

    id: str
    user_id: str
    platform: str
    text: str
    media_ids: list[str] = field(default_factory=list)
    time: float = field(default_factory=time.time)


@dataclass
class Media:
    """An upload: whole at once, or in segments until it is finalized."""

    id: str
    user_id: str
    media_type: str
    total_bytes: int
    segments: dict[int, bytes] = field(default_factory=dict)
    ready: bool = False

    @property
    def content(self) -> bytes:
        return b"".join(self.segments[index] for index in sorted(self.segments))

    def report(self) -> dict[str, object]:
        """The bytes are told by their hash."""
        content = self.content
        return {
            "id": self.id, "user_id": self.user_id, "media_type": self.media_type, "ready": self.ready,
            "bytes": len(content), "segments": len(self.segments), "sha256": hashlib.sha256(content).hexdigest(),
        }  # fmt: skip


@dataclass
class Window:
    """What one user may still ask of one endpoint, until when."""

    limit: int
    left: int
    reset: float

    def headers(self) -> dict[str, str]:
        return {
            "x-rate-limit-limit": str(self.limit),
            "x-rate-limit-remaining": str(self.left),
            "x-rate-limit-reset": str(int(self.reset) + 1),  # whole seconds; one too early would be a lie
        }


class Posts:
    """All posts and uploads, and the windows that are open."""

    def __init__(self) -> None:
        self.posts: dict[str, Post] = {}
        self.media: dict[str, Media] = {}
        self._windows: dict[tuple[str, str], Window] = {}
        self._ids = itertools.count(FIRST_ID)

    def add(self, user_id: str, platform: str, text: str, media_ids: Sequence[str] = ()) -> Post:
        post = Post(self.next_id(), user_id, platform, text, list(media_ids))
        self.posts[post.id] = post
        return post

    def of(self, user_id: str) -> list[Post]:
        """The user's posts, the newest first."""
        return [post for post in reversed(self.posts.values()) if post.user_id == user_id]

    def upload(self, user_id: str, media_type: str, total_bytes: int) -> Media:
        media = Media(self.next_id(), user_id, media_type, total_bytes)
        self.media[media.id] = media
        return media

    def next_id(self) -> str:
        return str(next(self._ids))

    def count(self, user_id: str, endpoint: str, limit: int, seconds: float) -> tuple[bool, Window]:
        """Whether a request is within its window, and what the window is after it."""
        window = self._windows.get((user_id, endpoint))
        if window is None or window.reset <= time.time() or window.limit != limit:
            window = self._windows[user_id, endpoint] = Window(limit, limit, time.time() + seconds)
        within = window.left > 0
        window.left = max(0, window.left - 1)
        return within, window
