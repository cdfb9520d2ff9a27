"""To the inside: the database, its schema and migrations, the vault and the key ring.

It may import `server.accounts`, Peewee, cryptography and the standard library.
"""
