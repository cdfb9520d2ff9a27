"""The sandbox's pages: sign-in and consent, as a person meets them. Every page says that it is a sandbox."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape

STYLE = """
:root { color-scheme: light dark; --ground: #eef1f5; --card: #fff; --text: #14171c; --soft: #5a6270; --line: #d9dee6;
  --act: #1d4ed8; --onact: #fff; --tint: #e8eefc; --flag: #fde68a; --flagtext: #4a3500 }
@media (prefers-color-scheme: dark) { :root { --ground: #0e1013; --card: #191c21; --text: #f0f2f5; --soft: #a3abb8;
  --line: #323843; --act: #7aa5ff; --onact: #0b1220; --tint: #222c42; --flag: #453606; --flagtext: #fde68a } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; min-height: 100dvh; display: flex; flex-direction: column;
  background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
.flag { background: var(--flag); color: var(--flagtext); text-align: center; padding: 10px 16px; font-size: .875rem;
  text-wrap: balance }
main { width: calc(100% - 32px); max-width: 27rem; margin: auto; padding: 32px 28px; background: var(--card);
  border: 1px solid var(--line); border-radius: 20px; box-shadow: 0 12px 32px rgb(0 0 0 / .06) }
h1 { font-size: 1.45rem; line-height: 1.25; margin: 0 0 8px; letter-spacing: -.015em; text-wrap: balance }
p { margin: 0 0 20px; color: var(--soft) } p strong { color: var(--text); overflow-wrap: anywhere }
h1 + p:last-child { margin: 0; overflow-wrap: anywhere }
ul { list-style: none; margin: 0 0 24px; padding: 0; border: 1px solid var(--line); border-radius: 14px }
li { padding: 11px 16px; border-top: 1px solid var(--line); overflow-wrap: anywhere;
  text-wrap: balance } li:first-child { border-top: 0 }
small { color: var(--soft); display: block; font: .8rem/1.4 ui-monospace, SFMono-Regular, Menlo, monospace }
button, input[type=text] { font: inherit; width: 100%; min-height: 48px; padding: 10px 18px; border-radius: 999px }
button { border: 1px solid var(--line); background: none; color: inherit; cursor: pointer; font-weight: 600 }
button + button { margin-top: 10px }
button:hover { background: var(--tint) }
button.go { background: var(--act); border-color: var(--act); color: var(--onact) } button.go:hover { opacity: .92 }
.user { display: flex; align-items: center; gap: 12px; border-radius: 14px; padding: 9px 14px; text-align: left;
  font-weight: 400 } .user b { display: block; line-height: 1.3; overflow-wrap: anywhere }
.user i { flex: none; width: 40px; height: 40px; border-radius: 50%; display: grid; place-items: center;
  background: var(--tint); color: var(--act); font: 600 1.05rem/1 system-ui, sans-serif }
.user span span { color: var(--soft); font-size: .875rem }
.or { display: flex; align-items: center; gap: 12px; margin: 22px 0 14px; font-size: .875rem }
.or::before, .or::after { content: ""; flex: 1; border-top: 1px solid var(--line) }
label { display: block; font-size: .875rem; color: var(--soft); margin: 0 0 6px }
input[type=text] { border: 1px solid var(--line); background: none; color: inherit; margin: 0 0 10px }
:focus-visible { outline: 3px solid var(--act); outline-offset: 2px }
""".strip()

STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    # No form-action: browsers hold the redirect after the form against it, and that goes to the app's own address.
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'"
    ),
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
    "openid": "Know that it is you",
    "profile": "See your name and photo",
    "w_member_social": "Post, comment and react for you",
}


def page(platform: str, title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} · Sandbox</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f'<div class="flag" role="note"><strong>Sandbox.</strong> This is a pretend {escape(platform)} for '
        f"development. Nothing here is real.</div><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )


def hidden(fields: Mapping[str, str]) -> str:
    return "".join(f'<input type="hidden" name="{escape(n)}" value="{escape(v)}">' for n, v in fields.items())


def sign_in(platform: str, query: Mapping[str, str], users: Iterable[tuple[str, str]]) -> str:
    """Choose a user, or name one; leads to the consent page. `query` is the authorization request; `users` are pairs
    of username and name."""
    kept = hidden({name: value for name, value in query.items() if name != "username"})
    known = "".join(user_button(username, name) for username, name in users)
    return page(
        platform,
        f"Sign in to {platform}",
        f'<p>Who are you today?</p><form method="get">{kept}{known}</form>'
        f'<p class="or">or</p><form method="get">{kept}<label for="username">A new username</label>'
        '<input type="text" id="username" name="username" pattern="[A-Za-z0-9_]{1,15}" '
        'title="1 to 15 letters, digits and underscores" required autocomplete="off" autocapitalize="none" '
        'spellcheck="false"><button>Continue</button></form>',
    )


def user_button(username: str, name: str) -> str:
    return (
        f'<button class="user" name="username" value="{escape(username)}" aria-label="Continue as @{escape(username)}">'
        f'<i aria-hidden="true">{escape(username[:1].upper())}</i><span><b>@{escape(username)}</b>'
        f"<span>{escape(name)}</span></span></button>"
    )


def consent(platform: str, username: str, app: str, scopes: Iterable[str]) -> str:
    """Allow or cancel; posts the decision to the same address."""
    rows = "".join(
        f"<li>{escape(WHAT_SCOPES_MEAN.get(scope, 'Use something else'))}<small>{escape(scope)}</small></li>"
        for scope in scopes
    )
    return page(
        platform,
        "Give this app access?",
        f"<p><strong>{escape(app)}</strong> wants to use your {escape(platform)} account "
        f"<strong>@{escape(username)}</strong>. It could:</p>"
        f'<ul>{rows}</ul><form method="post">{hidden({"username": username})}'
        '<button class="go" name="decision" value="allow">Allow</button>'
        '<button name="decision" value="deny">Cancel</button></form>',
    )


def refused(platform: str, why: str) -> str:
    return page(platform, "Something is wrong with this link", f"<p>{escape(why)}</p>")
