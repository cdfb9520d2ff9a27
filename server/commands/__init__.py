"""The commands of `python -m server`: what operators type, and what it does beside a running server.

It may import every room: like `app` it puts them together.
"""
