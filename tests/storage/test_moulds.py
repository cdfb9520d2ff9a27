"""What tests begin with is what a migration makes: a copied database is whole, empty and of the test's key ring."""

from server.storage.engine import Engine
from server.storage.keyring import KeyRing
from server.storage.migrate import check_keys, check_schema, migrate


def test_a_copied_database_lacks_nothing_that_a_migration_makes(engine: Engine, ring: KeyRing) -> None:
    check_schema(engine.database)
    check_keys(engine.database, ring)
    assert migrate(engine.database, ring) == []
