"""The pages that a browser can meet: constant, self-contained. Nothing of a request is ever shown."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from server.accounts.flow import ResultPage

STYLE: Final = """
:root { color-scheme: light dark; --ground: #f4f5f7; --card: #ffffff; --text: #16181d;
  --soft: #5b6270; --mark: #1f7a4d }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0f1115; --card: #191c22; --text: #f1f3f6; --soft: #a5adba; --mark: #4cc38a } }
.denied { --mark: #8a6d1d } .expired { --mark: #3563a8 } .failed { --mark: #b3372f }
@media (prefers-color-scheme: dark) {
  .denied { --mark: #e0b94c } .expired { --mark: #82aef0 } .failed { --mark: #f08078 } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; min-height: 100svh; display: grid; place-items: center;
  padding: 24px; background: var(--ground); color: var(--text);
  font: 17px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { max-width: 26rem; width: 100%; background: var(--card); border-radius: 20px; padding: 40px 32px;
  text-align: center;
  box-shadow: 0 1px 2px rgb(0 0 0 / .06), 0 12px 32px rgb(0 0 0 / .08) }
svg { width: 64px; height: 64px; margin-bottom: 16px; color: var(--mark) }
h1 { font-size: 1.45rem; line-height: 1.25; margin: 0 0 12px; letter-spacing: -.01em; text-wrap: balance }
p { margin: 0 0 12px; color: var(--soft); text-wrap: balance } p:last-child { margin-bottom: 0 }
.next { color: var(--text) }
""".strip()

SYMBOLS: Final = {
    ResultPage.CONNECTED: '<path d="M20 33.5l8.5 8.5L45 25"/>',
    ResultPage.DENIED: '<path d="M22 32h20"/>',
    ResultPage.EXPIRED: '<path d="M32 20v13l8 6"/>',
    ResultPage.FAILED: '<path d="M32 20v15M32 43.5v.5"/>',
}

HTML: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main class="{kind}">
<svg viewBox="0 0 64 64" fill="none" stroke="currentColor" stroke-width="4" stroke-linecap="round" \
stroke-linejoin="round" aria-hidden="true"><circle cx="32" cy="32" r="28"/>{symbol}</svg>
<h1>{title}</h1>
<p>{happened}</p>
<p class="next">{next}</p>
</main>
</body>
</html>
"""

STYLE_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()


HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
"""On every response."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it is sent."""

    status: int
    body: bytes


def render(kind: ResultPage, status: int, title: str, happened: str, what_next: str) -> Page:
    """`kind` is the page whose colour and symbol it has."""
    text = HTML.format(kind=kind, title=title, happened=happened, next=what_next, style=STYLE, symbol=SYMBOLS[kind])
    return Page(status, text.encode())


PAGES: Final = {
    ResultPage.CONNECTED: render(
        ResultPage.CONNECTED,
        200,
        "Your account is connected",
        "You gave permission and everything worked.",
        "You can close this window and go back to the app you came from.",
    ),
    ResultPage.DENIED: render(
        ResultPage.DENIED,
        200,
        "You did not give permission",
        "Nothing was connected, and nothing has changed.",
        "If that was not what you wanted, go back to the app you came from and start again.",
    ),
    # 410: the link is not here any more; a person sees the page, a program sees that trying again is useless.
    ResultPage.EXPIRED: render(
        ResultPage.EXPIRED,
        410,
        "This link has ended",
        "It was used before, or it is too old. Links like this one work once, and for ten minutes.",
        # A phone loads a page again when its tab is reopened: this one then follows a connect that succeeded.
        "Go back to the app you came from. If your account is not connected there, start again.",
    ),
    ResultPage.FAILED: render(
        ResultPage.FAILED,
        400,
        "That did not work",
        "We could not finish connecting your account.",
        "Go back to the app you came from and start again. If it keeps failing, tell the people who run the app.",
    ),
}

BUSY: Final = render(
    ResultPage.EXPIRED,
    503,
    "One moment",
    "Many people are coming back at once.",
    "This page tries again by itself; you need do nothing.",
)
"""Sent with a header that makes the browser come again."""
