"""What is asked of the tables by more than one function of the store."""

from datetime import timedelta

from sqlalchemy import Select, and_, exists, func, select
from sqlalchemy.orm import Session, aliased

from fooddit.rating.records import Asked, Given, RatingError, Settings
from fooddit.rating.tables import Item, Label, Lease, Project, Rater, Round, RoundItem, now


def candidates(opened: Round, rater: int, raters: int):
    """Items of the round that this rater has not rated and that need somebody, and how many have rated them or have
    them on the screen. Asked again are those who have rated them before."""
    number = opened.id
    rated = select(Label.item_id, func.count().label("n")).where(Label.round_id == number, *is_current())
    rated = rated.group_by(Label.item_id).subquery()
    leases = select(Lease.item_id, func.count().label("n"))
    leases = leases.where(Lease.round_id == number, Lease.rater_id != rater, Lease.until > now())
    leases = leases.group_by(Lease.item_id).subquery()
    mine = select(Label.id).where(
        Label.round_id == number, Label.item_id == RoundItem.item_id, Label.rater_id == rater, *is_current()
    )
    before = select(Label.id).where(
        Label.round_id != number, Label.item_id == RoundItem.item_id, Label.rater_id == rater, *is_current()
    )
    asked = [exists(before)] if opened.kind == "again" else []
    done, open_now = func.coalesce(rated.c.n, 0), func.coalesce(leases.c.n, 0)
    return (
        select(RoundItem.item_id.label("id"), (done + open_now).label("busy"))
        .outerjoin(rated, rated.c.item_id == RoundItem.item_id)
        .outerjoin(leases, leases.c.item_id == RoundItem.item_id)
        .where(RoundItem.round_id == number, done < raters, ~exists(mine), *asked)
    )


def is_current():
    """A label counts if the rater said nothing later of the item in the round, and has not taken it back."""
    later = aliased(Label)
    same = and_(
        later.round_id == Label.round_id,
        later.item_id == Label.item_id,
        later.rater_id == Label.rater_id,
        later.revision > Label.revision,
    )
    return Label.kind != "withdrawn", ~exists(select(later.id).where(same))


def find_project(session: Session, number: int) -> Project:
    found = session.get(Project, number)
    if found is None:
        raise RatingError(f"no project {number}")
    return found


def find_round(session: Session, project: int, number: int) -> Round:
    found = session.scalar(select(Round).where(Round.project_id == project, Round.number == number))
    if found is None:
        raise RatingError(f"no round {number} in the project")
    return found


def find_open_round(session: Session, project: int, lock: bool = False) -> Round | None:
    """`lock`: whoever else asks for an item of it waits, so that two are not given the same one."""
    wanted = select(Round).where(Round.project_id == project, Round.closed.is_(None))
    return session.scalar(wanted.with_for_update() if lock else wanted)


def lease_item(session: Session, opened: Round, rater: int, item: int, settings: Settings) -> None:
    until = now() + timedelta(seconds=settings.lease_seconds)
    session.merge(Lease(round_id=opened.id, rater_id=rater, item_id=item, until=until))


def asked_item(session: Session, opened: Round, item: int, left: int) -> Asked:
    found, why = session.get(Item, item), session.get(RoundItem, (opened.id, item)).why
    return Asked(opened.number, opened.kind, found.id, found.key, tuple(found.files), found.about, why, left)


def labels(*where) -> Select:
    """Rows for `as_given`: labels with their round's number, item's key and rater's name."""
    names = select(Label, Round.number, Item.key, Rater.name).join(Round, Label.round_id == Round.id)
    return names.join(Item, Label.item_id == Item.id).join(Rater, Label.rater_id == Rater.id).where(*where)


def as_given(row) -> Given:
    """Of a row of `labels`."""
    label, round, key, rater = row
    created = label.created.isoformat()
    return Given(
        label.id, round, label.item_id, key, rater, label.revision, label.kind, label.values, created, label.seconds
    )
