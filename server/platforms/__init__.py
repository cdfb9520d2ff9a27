"""To the outside: what the platforms are, and how to speak OAuth 2.0 to them.

It may import `server.accounts`, requests-oauthlib, oauthlib, requests, urllib3, aiohttp and the standard library.
"""
