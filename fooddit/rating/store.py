"""What raters and leads do: projects, items, raters, rounds and labels. Every function is one transaction."""

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fooddit.rating.database import reading, writing
from fooddit.rating.label_values import LabelError, check_id, check_label, check_seconds
from fooddit.rating.queries import (
    as_given,
    asked_item,
    candidates,
    find_open_round,
    find_project,
    find_round,
    is_current,
    labels,
    lease_item,
)
from fooddit.rating.records import Asked, Given, RatingError, Settings, Shown
from fooddit.rating.tables import MODES, ROLES, ROUNDS, Item, Label, Lease, Project, Rater, Round, RoundItem, now
from fooddit.standards import Standard, as_values, from_values

# Times that a label is tried again where another one of the same rater came between.
_RETRIES = 2


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

    def projects(self) -> list[Shown]:
        """All of them, as a rater sees them."""
        with reading(self._engine) as session:
            return [
                Shown(found.id, found.name, found.mode, None if opened is None else opened.number)
                for found in session.scalars(select(Project).order_by(Project.id))
                for opened in [find_open_round(session, found.id)]
            ]

    def picture(self, project: int, item: int, number: int) -> Path:
        """The file of an item's picture, from 0. RatingError for one that is not there, or not in the project's
        folder."""
        with reading(self._engine) as session:
            root, found = Path(find_project(session, project).pictures).resolve(), session.get(Item, item)
            if found is None or found.project_id != project or not 0 <= number < len(found.files):
                raise RatingError(f"no picture {number} of item {item} in the project")
            path = (root / found.files[number]).resolve()
        if not path.is_relative_to(root):
            raise RatingError(f"{found.files[number]!r} is outside the project's folder")
        return path

    def standard(self, project: int) -> Standard:
        """The standard of a project, as it was when the project was made."""
        with reading(self._engine) as session:
            return from_values(find_project(session, project).standard)

    def add_items(self, project: int, rows: Iterable[tuple[str, Sequence[str], dict[str, Any]]]) -> int:
        """How many of (key, files, about) were new. RatingError if a key is there with other files, and then none is
        added."""
        added = 0
        with writing(self._engine) as session:
            wanted = 2 if find_project(session, project).mode == "pairs" else 1
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
            find_project(session, project)
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
            found = find_open_round(session, project, lock=True)
            if found is None:
                return None
            settings = Settings(**find_project(session, project).settings)
            rows = session.execute(candidates(found, rater, settings.raters)).all()
            if not rows:
                return None
            leased = session.get(Lease, (found.id, rater))
            kept = [row for row in rows if leased is not None and row.id == leased.item_id]
            # Each rater goes through them in an order of their own.
            chosen = kept[0] if kept else min(rows, key=lambda row: (row.busy, _shuffled(row.id, rater)))
            lease_item(session, found, rater, chosen.id, settings)
            return asked_item(session, found, chosen.id, len(rows))

    def ask(self, project: int, rater: int, item: int) -> Asked:
        """A certain item of the open round, put on the rater's screen: the one they have just taken back."""
        with writing(self._engine) as session:
            found = find_open_round(session, project, lock=True)
            if found is None or session.get(RoundItem, (found.id, item)) is None:
                raise RatingError(f"item {item} is not of an open round")
            settings = Settings(**find_project(session, project).settings)
            lease_item(session, found, rater, item, settings)
            return asked_item(
                session, found, item, len(session.execute(candidates(found, rater, settings.raters)).all())
            )

    def count_given(self, project: int, rater: int) -> int:
        """How many items of the open round this rater has said something of."""
        with reading(self._engine) as session:
            found = find_open_round(session, project)
            mine = select(func.count()).select_from(Label).where(Label.rater_id == rater, *is_current())
            return 0 if found is None else session.scalar(mine.where(Label.round_id == found.id))

    def give(
        self, project: int, rater: int, round: int, item: int, id: str, kind: str, values: Any, seconds: float = 0.0
    ) -> Given:
        """Keeps a label; once this returns it is on the disk. The same `id` again is the same label.

        Raises:
          LabelError: the label is not as the standard has it. RatingError: the round is closed, the item is not of it,
          the id is another label's.
        """
        check_id(id)
        check_seconds(seconds)
        for _ in range(_RETRIES):
            with suppress(IntegrityError):
                return self._give(project, rater, round, item, id, kind, values, seconds)
        return self._give(project, rater, round, item, id, kind, values, seconds)

    def _give(self, project, rater, round, item, id, kind, values, seconds) -> Given:
        with writing(self._engine) as session:
            owner, current = find_project(session, project), find_round(session, project, round)
            if (kept := session.get(Label, id)) is not None:
                if (kept.round_id, kept.item_id, kept.rater_id, kept.kind) != (current.id, item, rater, kind):
                    raise RatingError(f"the label {id} is there already, and is another one")
                return as_given(session.execute(labels(Label.id == id)).one())
            if kind not in ("skip", "withdrawn", {"levels": "levels", "pairs": "pair"}[owner.mode]):
                raise LabelError(f"kind: found {kind!r}, but the project is of {owner.mode}")
            checked = check_label(kind, values, from_values(owner.standard))
            if current.closed is not None:
                raise RatingError(f"round {round} is closed; your label was not kept")
            if session.get(RoundItem, (current.id, item)) is None:
                raise RatingError(f"item {item} is not of round {round}")
            mine = Label.round_id == current.id, Label.item_id == item, Label.rater_id == rater
            before = session.scalar(select(func.max(Label.revision)).where(*mine)) or 0
            place = {"round_id": current.id, "item_id": item, "rater_id": rater, "revision": before + 1}
            label = Label(id=id, **place, kind=kind, values=checked, seconds=float(seconds))
            session.add(label)
            lease = session.get(Lease, (current.id, rater))
            if lease is not None and lease.item_id == item:
                session.delete(lease)
            session.flush()
            return as_given(session.execute(labels(Label.id == id)).one())

    def last_given(self, project: int, rater: int) -> Given | None:
        """What this rater said last in the open round and has not withdrawn: what "undo" takes back."""
        with reading(self._engine) as session:
            found = find_open_round(session, project)
            if found is None:
                return None
            mine = labels(Label.round_id == found.id, Label.rater_id == rater, *is_current())
            row = session.execute(mine.order_by(Label.created.desc(), Label.revision.desc()).limit(1)).first()
            return None if row is None else as_given(row)

    def given(self, project: int, round: int | None = None) -> list[Given]:
        """Labels that count, of a round or of all, by round, item and rater."""
        with reading(self._engine) as session:
            of_round = [] if round is None else [Round.number == round]
            wanted = labels(Round.project_id == project, *is_current(), *of_round)
            return list(map(as_given, session.execute(wanted.order_by(Round.number, Label.item_id, Label.rater_id))))

    def history(self, project: int) -> list[Given]:
        """Every label there ever was, also those that were said again or withdrawn, in the order of their coming."""
        with reading(self._engine) as session:
            wanted = labels(Round.project_id == project)
            return list(map(as_given, session.execute(wanted.order_by(Label.created, Label.id))))

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
