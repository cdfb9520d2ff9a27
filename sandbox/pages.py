"""The sandbox's pages: sign-in and consent, as a person meets them. Every page says that it is a sandbox."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape

STYLE = """
:root { color-scheme: light dark; --ground: #eef1f5; --card: #fff; --text: #14171c; --soft: #5a6270; --line: #d9dee6;
  --act: #1d4ed8; --flag: #fde68a; --flagtext: #5b4300 }
@media (prefers-color-scheme: dark) { :root { --ground: #0e1013; --card: #191c21; --text: #f0f2f5; --soft: #a3abb8;
  --line: #323843; --act: #6d9bff; --flag: #4a3a06; --flagtext: #fde68a } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
.flag { background: var(--flag); color: var(--flagtext); text-align: center; padding: 10px 16px; font-size: .9rem }
main { max-width: 26rem; margin: 6vh auto; padding: 32px 28px; background: var(--card); border-radius: 20px;
  box-shadow: 0 12px 32px rgb(0 0 0 / .08) }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0 0 8px; letter-spacing: -.01em }
p { margin: 0 0 20px; color: var(--soft) }
ul { list-style: none; margin: 0 0 20px; padding: 0; border: 1px solid var(--line); border-radius: 14px }
li { padding: 12px 16px; border-top: 1px solid var(--line) } li:first-child { border-top: 0 }
button, input[type=text] { font: inherit; width: 100%; padding: 12px 16px; border-radius: 999px }
input[type=text] { border: 1px solid var(--line); background: none; color: inherit; margin: 6px 0 12px }
button { border: 1px solid var(--line); background: none; color: inherit; cursor: pointer; margin-top: 10px;
  font-weight: 600 }
button.go { background: var(--act); border-color: var(--act); color: #fff }
@media (prefers-color-scheme: dark) { button.go { color: #0e1013 } }
button:focus-visible, input:focus-visible { outline: 3px solid var(--act); outline-offset: 2px }
small { color: var(--soft); display: block } label { font-size: .9rem; color: var(--soft) }
""".strip()

STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}

WHAT_SCOPES_MEAN = {
    "tweet.read": "See posts you can see",
    "tweet.write": "Post and repost for you",
    "users.read": "See your profile",
    "offline.access": "Stay connected until you remove it",
    "media.write": "Upload photos and videos",
}


def page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} · Sandbox</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        '<div class="flag"><strong>Sandbox.</strong> This is a pretend X for development. Nothing here is real.</div>'
        f"<main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )


def hidden(fields: Mapping[str, str]) -> str:
    return "".join(f'<input type="hidden" name="{escape(n)}" value="{escape(v)}">' for n, v in fields.items())


def sign_in(query: Mapping[str, str], usernames: Iterable[str]) -> str:
    """Choose a user, or name one; leads to the consent page."""
    known = "".join(
        f'<button class="go" name="username" value="{escape(name)}">Continue as @{escape(name)}</button>'
        for name in usernames
    )
    return page(
        "Sign in to X",
        f'<p>Who are you today?</p><form method="get">{hidden(query)}{known}</form>'
        f'<form method="get">{hidden(query)}<p></p><label for="username">Or a new username</label>'
        '<input type="text" id="username" name="username" pattern="[A-Za-z0-9_]{1,15}" required autocomplete="off">'
        "<button>Continue</button></form>",
    )


def consent(username: str, app: str, scopes: Iterable[str]) -> str:
    """Allow or cancel; posts the decision to the same address."""
    rows = "".join(
        f"<li>{escape(WHAT_SCOPES_MEAN.get(scope, scope))}<small>{escape(scope)}</small></li>" for scope in scopes
    )
    return page(
        "Give this app access?",
        f"<p><strong>{escape(app)}</strong> wants to use your account "
        f"<strong>@{escape(username)}</strong>. It could:</p>"
        f'<ul>{rows}</ul><form method="post">{hidden({"username": username})}'
        '<button class="go" name="decision" value="allow">Allow</button>'
        '<button name="decision" value="deny">Cancel</button></form>',
    )


def refused(why: str) -> str:
    return page("Something is wrong with this link", f"<p>{escape(why)}</p>")
