"""The sandbox: a pretend platform for development, demos and tests, in a process of its own.

It behaves as X does, keeps a ledger of every token, and misbehaves on command. The server never imports it.
"""
