"""The database of ratings: SQLite in a file, or PostgreSQL by its URL; made and brought up to date by migrations."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.orm import Session

_MIGRATIONS = Path(__file__).parent / "migrations"
# Seconds that a writer waits for another one of the same SQLite file.
_BUSY = 30


def open_database(url: str) -> Engine:
    """The engine, its tables as this version has them. `url`: sqlite:///FILE, postgresql+psycopg://..."""
    engine = create_engine(url, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    with engine.begin() as connection:
        migrate(connection)
    return engine


def migrate(connection: Connection, revision: str = "head") -> None:
    """Brings the tables to a revision; those that are there already stay as they are."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that sees one moment and writes nothing; of SQLite it holds up no writer."""
    with engine.connect().execution_options(sqlite_begin="BEGIN") as connection, Session(connection) as session:
        yield session


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A session of one transaction: all of it is on the disk when this is left, or none of it."""
    with engine.begin() as connection, Session(connection, join_transaction_mode="conditional_savepoint") as session:
        yield session
        session.flush()


def _prepare_sqlite(engine: Engine) -> None:
    """Readers beside a writer, a label on the disk once it is confirmed, writers that wait for each other."""

    @event.listens_for(engine, "connect")
    def connect(connection, record):
        # Transactions begin where we say so, not at the driver's discretion.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={1000 * _BUSY}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection):
        # A transaction that reads first and then writes would else fail where another one wrote in between.
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN IMMEDIATE"))
