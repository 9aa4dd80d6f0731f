"""The tables of a rating database. Labels are only ever added: whoever changes their mind adds another revision."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, Index, MetaData, String, TypeDecorator, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ROLES = ("rater", "lead")
MODES = ("levels", "pairs")
# "again": items on which people differed, with the standard beside them; "model": those on which a model differs.
ROUNDS = ("first", "again", "model")
KINDS = ("levels", "pair", "skip", "withdrawn")


class UtcTime(TypeDecorator):
    """A moment in UTC, with its zone: SQLite keeps none."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value, dialect):
        return None if value is None else value.replace(tzinfo=UTC)


class Table(DeclarativeBase):
    """Of every class below. Constraints have names, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, datetime: UtcTime}


def now() -> datetime:
    """The moment, in UTC."""
    return datetime.now(UTC)


class Project(Table):
    """Pictures that are rated under one standard, which is kept with it as it was.

    `settings`: raters an item, and how far apart its raters may be (`store.Settings`).
    """

    __tablename__ = "project"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    mode: Mapped[str] = mapped_column(String(20))
    pictures: Mapped[str] = mapped_column(String(4000))
    standard: Mapped[dict[str, Any]]
    settings: Mapped[dict[str, Any]]
    created: Mapped[datetime] = mapped_column(default=now)


class Rater(Table):
    """Somebody with a token, of which only the hash is kept."""

    __tablename__ = "rater"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    role: Mapped[str] = mapped_column(String(20))
    token: Mapped[str] = mapped_column(String(64), unique=True)
    active: Mapped[bool] = mapped_column(default=True)
    created: Mapped[datetime] = mapped_column(default=now)


class Item(Table):
    """One picture, or the two of a pair: names of files in the project's folder. `about`: what else is shown."""

    __tablename__ = "item"
    __table_args__ = (UniqueConstraint("project_id", "key"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"), index=True)
    key: Mapped[str] = mapped_column(String(500))
    files: Mapped[list[Any]]
    about: Mapped[dict[str, Any]]


class Round(Table):
    """A pass over some of the items."""

    __tablename__ = "round"
    __table_args__ = (UniqueConstraint("project_id", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"), index=True)
    number: Mapped[int]
    kind: Mapped[str] = mapped_column(String(20))
    about: Mapped[dict[str, Any]]
    opened: Mapped[datetime] = mapped_column(default=now)
    closed: Mapped[datetime | None]


class RoundItem(Table):
    """An item of a round; `why`: what it is asked again for."""

    __tablename__ = "round_item"
    round_id: Mapped[int] = mapped_column(ForeignKey("round.id"), primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"), primary_key=True, index=True)
    why: Mapped[dict[str, Any]]


class Lease(Table):
    """An item that a rater has on the screen until a moment: others are given other ones first."""

    __tablename__ = "lease"
    round_id: Mapped[int] = mapped_column(ForeignKey("round.id"), primary_key=True)
    rater_id: Mapped[int] = mapped_column(ForeignKey("rater.id"), primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"))
    until: Mapped[datetime]


class Label(Table):
    """What a rater said of an item in a round. The highest revision counts; "withdrawn" is none.

    `id` is made by whoever sends it, so that a label which is sent again after a lost answer is one label.
    """

    __tablename__ = "label"
    __table_args__ = (
        UniqueConstraint("round_id", "item_id", "rater_id", "revision"),
        Index("ix_label_rater_created", "rater_id", "created"),
    )
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("round.id"))
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"), index=True)
    rater_id: Mapped[int] = mapped_column(ForeignKey("rater.id"))
    revision: Mapped[int]
    kind: Mapped[str] = mapped_column(String(20))
    values: Mapped[dict[str, Any]]
    seconds: Mapped[float]
    created: Mapped[datetime] = mapped_column(default=now)


class Mark(Table):
    """A lead's word on a difference between people and a model: whose fault it is."""

    __tablename__ = "mark"
    id: Mapped[int] = mapped_column(primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("round.id"), index=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"))
    rater_id: Mapped[int] = mapped_column(ForeignKey("rater.id"))
    about: Mapped[str] = mapped_column(String(100))
    whose: Mapped[str] = mapped_column(String(20))
    created: Mapped[datetime] = mapped_column(default=now)
