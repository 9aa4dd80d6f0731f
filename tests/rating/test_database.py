"""Migrations make what the tables are; what is there already is kept."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from fooddit.rating.database import open_database
from fooddit.rating.store import Store
from fooddit.rating.tables import Table
from fooddit.standards import load_standard


def test_the_migrations_make_the_tables_as_they_are_declared(url):
    engine = open_database(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
    assert set(Table.metadata.tables) < set(inspect(engine).get_table_names())


def test_opening_again_keeps_what_is_there(url):
    number = Store(open_database(url)).add_project("menu", "pictures", load_standard("photos"))
    assert Store(open_database(url)).standard(number) == load_standard("photos")
