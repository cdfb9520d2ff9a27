"""The HTTP edge: the OAuth callback that browsers meet, its pages, and a health check.

It may import `server.accounts`, aiohttp's server and the standard library.
"""
