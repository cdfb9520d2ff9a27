"""The domain: connect, refresh, revoke and read connected accounts.

It decides; it neither stores, sends nor serves. It imports the standard library only and reaches the outside through
the ports in `ports`.
"""
