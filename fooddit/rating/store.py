"""What raters and leads do: projects, items, raters, rounds and labels. Every function is one transaction."""

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, and_, exists, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from fooddit.rating.database import reading, writing
from fooddit.rating.label_values import LabelError, check_label
from fooddit.rating.tables import MODES, ROLES, ROUNDS, Item, Label, Lease, Project, Rater, Round, RoundItem, now
from fooddit.standards import Standard, as_values, from_values

# Times that a label is tried again where another one of the same rater came between.
_TRIES = 3


class RatingError(ValueError):
    """What was asked for cannot be; the message says why and what can."""


@dataclass(frozen=True)
class Settings:
    """Of a project.

    Attributes:
      raters: how many rate each item.
      lease_seconds: how long an item that somebody has on the screen is kept from others.
    """

    raters: int = 3
    lease_seconds: float = 600.0

    def __post_init__(self):
        if self.raters < 1 or self.lease_seconds < 0:
            raise RatingError(
                f"expected raters of at least 1 and lease_seconds of at least 0, found {self.raters} and "
                f"{self.lease_seconds}"
            )


@dataclass(frozen=True)
class Shown:
    """A project as a rater sees it; `round` is the open one's number, None without one."""

    id: int
    name: str
    mode: str
    round: int | None


@dataclass(frozen=True)
class Asked:
    """An item to rate. `why`: what it is asked again for; `left`: items of the round that this rater may still rate."""

    round: int
    kind: str
    item: int
    key: str
    files: tuple[str, ...]
    about: dict[str, Any]
    why: dict[str, Any]
    left: int


@dataclass(frozen=True)
class Given:
    """A label as it is kept."""

    id: str
    round: int
    item: int
    key: str
    rater: str
    revision: int
    kind: str
    values: dict[str, Any]
    created: str
    seconds: float = 0.0


class Store:
    """The database of one team's ratings. Safe for several threads and processes at once."""

    def __init__(self, engine: Engine):
        self._engine = engine

    # Projects and who works on them.

    def add_project(
        self, name: str, pictures: str, standard: Standard, mode: str = "levels", settings: Settings | None = None
    ) -> int:
        """A project's number. RatingError if the name is taken or the mode is unknown."""
        if mode not in MODES:
            raise RatingError(f"mode: found {mode!r}, expected one of {', '.join(MODES)}")
        project = Project(
            name=_name(name),
            mode=mode,
            pictures=str(pictures),
            standard=as_values(standard),
            settings=asdict(settings or Settings()),
        )
        return self._insert(project, f"a project named {name!r} is there already")

    def add_rater(self, name: str, role: str = "rater") -> str:
        """The token of a new rater, which is kept nowhere: it is shown once."""
        if role not in ROLES:
            raise RatingError(f"role: found {role!r}, expected one of {', '.join(ROLES)}")
        token = secrets.token_urlsafe(24)
        self._insert(Rater(name=_name(name), role=role, token=_hash(token)), f"a rater named {name!r} is there already")
        return token

    def rater(self, token: str) -> Rater | None:
        """Whose token it is; None for a stranger and for a rater who was shut out."""
        with reading(self._engine) as session:
            found = session.scalar(select(Rater).where(Rater.token == _hash(token), Rater.active))
            return None if found is None else _detached(session, found)

    def rater_by_id(self, number: int) -> Rater | None:
        """The same by number, for a server whose only user needs no token."""
        with reading(self._engine) as session:
            found = session.scalar(select(Rater).where(Rater.id == number, Rater.active))
            return None if found is None else _detached(session, found)

    def rater_named(self, name: str) -> int:
        """A rater's number. RatingError if there is none of that name."""
        with reading(self._engine) as session:
            found = session.scalar(select(Rater.id).where(Rater.name == name, Rater.active))
            if found is None:
                raise RatingError(f"no rater named {name!r}; fooddit rate add-rater adds one")
            return found

    def shut_out(self, name: str) -> None:
        """The rater's token is worth nothing from here on; what they said is kept."""
        with writing(self._engine) as session:
            found = session.scalar(select(Rater).where(Rater.name == name))
            if found is None:
                raise RatingError(f"no rater named {name!r}")
            found.active = False

    def projects(self) -> list["Shown"]:
        """All of them, as a rater sees them."""
        with reading(self._engine) as session:
            return [
                Shown(found.id, found.name, found.mode, None if opened is None else opened.number)
                for found in session.scalars(select(Project).order_by(Project.id))
                for opened in [_open_round(session, found.id)]
            ]

    def picture(self, project: int, item: int, number: int) -> Path:
        """The file of an item's picture, from 0. RatingError for one that is not there, or not in the project's
        folder."""
        with reading(self._engine) as session:
            root, found = Path(_project(session, project).pictures).resolve(), session.get(Item, item)
            if found is None or found.project_id != project or not 0 <= number < len(found.files):
                raise RatingError(f"no picture {number} of item {item} in the project")
            path = (root / found.files[number]).resolve()
        if not path.is_relative_to(root):
            raise RatingError(f"{found.files[number]!r} is outside the project's folder")
        return path

    def standard(self, project: int) -> Standard:
        """The standard of a project, as it was when the project was made."""
        with reading(self._engine) as session:
            return from_values(_project(session, project).standard)

    def add_items(self, project: int, rows: Iterable[tuple[str, Sequence[str], dict[str, Any]]]) -> int:
        """How many of (key, files, about) were new. RatingError if a key is there with other files, and then none is
        added."""
        added = 0
        with writing(self._engine) as session:
            wanted = 2 if _project(session, project).mode == "pairs" else 1
            known = dict(session.execute(select(Item.key, Item.files).where(Item.project_id == project)).all())
            for key, files, about in rows:
                files = list(files)
                if len(files) != wanted:
                    raise RatingError(f"item {key!r}: found {len(files)} pictures, expected {wanted}")
                if known.setdefault(key, files) != files:
                    raise RatingError(f"item {key!r} is there already, with {known[key]}; now it has {files}")
                if known[key] is files:
                    session.add(Item(project_id=project, key=key, files=files, about=about))
                    added += 1
        return added

    # Rounds.

    def open_round(
        self,
        project: int,
        kind: str = "first",
        items: dict[str, dict[str, Any]] | None = None,
        about: dict | None = None,
    ) -> int:
        """The number of a new round over `items` (key: why it is asked), or over all. The one before is closed."""
        if kind not in ROUNDS:
            raise RatingError(f"kind: found {kind!r}, expected one of {', '.join(ROUNDS)}")
        with writing(self._engine) as session:
            _project(session, project)
            numbers = dict(session.execute(select(Item.key, Item.id).where(Item.project_id == project)).all())
            chosen = dict.fromkeys(numbers, {}) if items is None else items
            if strange := [key for key in chosen if key not in numbers]:
                raise RatingError(f"no item {strange[0]!r} in the project")
            if not chosen:
                raise RatingError("a round needs items; found none")
            before = session.scalars(select(Round).where(Round.project_id == project).order_by(Round.number)).all()
            for earlier in before:
                earlier.closed = earlier.closed or now()
            opened = Round(project_id=project, number=len(before) + 1, kind=kind, about=about or {})
            session.add(opened)
            session.flush()
            session.add_all(RoundItem(round_id=opened.id, item_id=numbers[key], why=why) for key, why in chosen.items())
            return opened.number

    # Rating.

    def next_item(self, project: int, rater: int) -> Asked | None:
        """The item that this rater should rate next: the one they have on the screen, else one that fewest have rated
        or are rating; None if there is none for them."""
        with writing(self._engine) as session:
            found = _open_round(session, project, lock=True)
            if found is None:
                return None
            settings = Settings(**_project(session, project).settings)
            rows = session.execute(_candidates(found, rater, settings.raters)).all()
            if not rows:
                return None
            leased = session.get(Lease, (found.id, rater))
            kept = [row for row in rows if leased is not None and row.id == leased.item_id]
            # Each rater goes through them in an order of their own.
            chosen = kept[0] if kept else min(rows, key=lambda row: (row.busy, _shuffled(row.id, rater)))
            _lease(session, found, rater, chosen.id, settings)
            return _asked(session, found, chosen.id, len(rows))

    def ask(self, project: int, rater: int, item: int) -> Asked:
        """A certain item of the open round, put on the rater's screen: the one they have just taken back."""
        with writing(self._engine) as session:
            found = _open_round(session, project, lock=True)
            if found is None or session.get(RoundItem, (found.id, item)) is None:
                raise RatingError(f"item {item} is not of an open round")
            settings = Settings(**_project(session, project).settings)
            _lease(session, found, rater, item, settings)
            return _asked(session, found, item, len(session.execute(_candidates(found, rater, settings.raters)).all()))

    def count_given(self, project: int, rater: int) -> int:
        """How many items of the open round this rater has said something of."""
        with reading(self._engine) as session:
            found = _open_round(session, project)
            mine = select(func.count()).select_from(Label).where(Label.rater_id == rater, *_counts())
            return 0 if found is None else session.scalar(mine.where(Label.round_id == found.id))

    def give(
        self, project: int, rater: int, round: int, item: int, id: str, kind: str, values: Any, seconds: float = 0.0
    ) -> Given:
        """Keeps a label; once this returns it is on the disk. The same `id` again is the same label.

        Raises:
          LabelError: the label is not as the standard has it. RatingError: the round is closed, the item is not of it,
          the id is another label's.
        """
        for tries in range(1, _TRIES + 1):
            try:
                return self._give(project, rater, round, item, id, kind, values, seconds)
            except IntegrityError:
                if tries == _TRIES:
                    raise
        raise AssertionError

    def _give(self, project, rater, round, item, id, kind, values, seconds) -> Given:
        with writing(self._engine) as session:
            owner, current = _project(session, project), _round(session, project, round)
            if (kept := session.get(Label, id)) is not None:
                if (kept.round_id, kept.item_id, kept.rater_id, kept.kind) != (current.id, item, rater, kind):
                    raise RatingError(f"the label {id} is there already, and is another one")
                return _given(session, kept)
            if kind not in ("skip", "withdrawn", {"levels": "levels", "pairs": "pair"}[owner.mode]):
                raise LabelError(f"kind: found {kind!r}, but the project is of {owner.mode}")
            checked = check_label(kind, values, from_values(owner.standard))
            if current.closed is not None:
                raise RatingError(f"round {round} is closed; your label was not kept")
            if session.get(RoundItem, (current.id, item)) is None:
                raise RatingError(f"item {item} is not of round {round}")
            revision = 1 + (
                session.scalar(
                    select(func.max(Label.revision)).where(
                        Label.round_id == current.id, Label.item_id == item, Label.rater_id == rater
                    )
                )
                or 0
            )
            label = Label(
                id=id, round_id=current.id, item_id=item, rater_id=rater, revision=revision, kind=kind, values=checked,
                seconds=float(seconds),
            )  # fmt: skip
            session.add(label)
            lease = session.get(Lease, (current.id, rater))
            if lease is not None and lease.item_id == item:
                session.delete(lease)
            session.flush()
            return _given(session, label)

    def last_given(self, project: int, rater: int) -> Given | None:
        """What this rater said last in the open round and has not withdrawn: what "undo" takes back."""
        with reading(self._engine) as session:
            found = _open_round(session, project)
            if found is None:
                return None
            label = session.scalar(
                select(Label)
                .where(Label.round_id == found.id, Label.rater_id == rater, *_counts())
                .order_by(Label.created.desc(), Label.revision.desc())
                .limit(1)
            )
            return None if label is None else _given(session, label)

    def given(self, project: int, round: int | None = None) -> list[Given]:
        """Labels that count, of a round or of all, by round, item and rater."""
        with reading(self._engine) as session:
            wanted = (
                select(Label).join(Round, Label.round_id == Round.id).where(Round.project_id == project, *_counts())
            )
            if round is not None:
                wanted = wanted.where(Round.number == round)
            ordered = wanted.order_by(Round.number, Label.item_id, Label.rater_id)
            return [_given(session, label) for label in session.scalars(ordered)]

    def history(self, project: int) -> list[Given]:
        """Every label there ever was, also those that were said again or withdrawn, in the order of their coming."""
        with reading(self._engine) as session:
            wanted = select(Label).join(Round, Label.round_id == Round.id).where(Round.project_id == project)
            return [_given(session, label) for label in session.scalars(wanted.order_by(Label.created, Label.id))]

    def items(self, project: int) -> dict[str, tuple[tuple[str, ...], dict[str, Any]]]:
        """Files and what else is known of each item, by key."""
        with reading(self._engine) as session:
            found = select(Item).where(Item.project_id == project).order_by(Item.id)
            return {item.key: (tuple(item.files), item.about) for item in session.scalars(found)}

    def _insert(self, row, taken: str) -> int:
        try:
            with writing(self._engine) as session:
                session.add(row)
                session.flush()
                return row.id
        except IntegrityError as error:
            raise RatingError(taken) from error


def _candidates(opened: Round, rater: int, raters: int):
    """Items of the round that this rater has not rated and that need somebody, and how many have rated them or have
    them on the screen. Asked again are those who have rated them before."""
    round = opened.id
    rated = select(Label.item_id, func.count().label("n")).where(Label.round_id == round, *_counts())
    rated = rated.group_by(Label.item_id).subquery()
    leases = select(Lease.item_id, func.count().label("n"))
    leases = leases.where(Lease.round_id == round, Lease.rater_id != rater, Lease.until > now())
    leases = leases.group_by(Lease.item_id).subquery()
    mine = select(Label.id).where(
        Label.round_id == round, Label.item_id == RoundItem.item_id, Label.rater_id == rater, *_counts()
    )
    before = select(Label.id).where(
        Label.round_id != round, Label.item_id == RoundItem.item_id, Label.rater_id == rater, *_counts()
    )
    asked = [exists(before)] if opened.kind == "again" else []
    done, open_now = func.coalesce(rated.c.n, 0), func.coalesce(leases.c.n, 0)
    return (
        select(RoundItem.item_id.label("id"), (done + open_now).label("busy"))
        .outerjoin(rated, rated.c.item_id == RoundItem.item_id)
        .outerjoin(leases, leases.c.item_id == RoundItem.item_id)
        .where(RoundItem.round_id == round, done < raters, ~exists(mine), *asked)
    )


def _counts():
    """A label counts if the rater said nothing later of the item in the round, and has not taken it back."""
    later = aliased(Label)
    same = and_(
        later.round_id == Label.round_id,
        later.item_id == Label.item_id,
        later.rater_id == Label.rater_id,
        later.revision > Label.revision,
    )
    return Label.kind != "withdrawn", ~exists(select(later.id).where(same))


def _project(session: Session, number: int) -> Project:
    found = session.get(Project, number)
    if found is None:
        raise RatingError(f"no project {number}")
    return found


def _round(session: Session, project: int, number: int) -> Round:
    found = session.scalar(select(Round).where(Round.project_id == project, Round.number == number))
    if found is None:
        raise RatingError(f"no round {number} in the project")
    return found


def _open_round(session: Session, project: int, lock: bool = False) -> Round | None:
    """`lock`: whoever else asks for an item of it waits, so that two are not given the same one."""
    wanted = select(Round).where(Round.project_id == project, or_(Round.closed.is_(None)))
    return session.scalar(wanted.with_for_update() if lock else wanted)


def _lease(session: Session, opened: Round, rater: int, item: int, settings: Settings) -> None:
    until = now() + timedelta(seconds=settings.lease_seconds)
    session.merge(Lease(round_id=opened.id, rater_id=rater, item_id=item, until=until))


def _asked(session: Session, opened: Round, item: int, left: int) -> Asked:
    found, why = session.get(Item, item), session.get(RoundItem, (opened.id, item)).why
    return Asked(opened.number, opened.kind, found.id, found.key, tuple(found.files), found.about, why, left)


def _given(session: Session, label: Label) -> Given:
    return Given(
        label.id,
        session.get(Round, label.round_id).number,
        label.item_id,
        session.get(Item, label.item_id).key,
        session.get(Rater, label.rater_id).name,
        label.revision,
        label.kind,
        label.values,
        label.created.isoformat(),
        label.seconds,
    )


def _detached(session: Session, row):
    session.expunge(row)
    return row


def _shuffled(item: int, rater: int) -> bytes:
    return hashlib.sha256(f"{item} {rater}".encode()).digest()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _name(name: str) -> str:
    name = " ".join(name.split())
    if not name or len(name) > 200:
        raise RatingError(f"expected a name of 1 to 200 characters, found {name[:50]!r}")
    return name
