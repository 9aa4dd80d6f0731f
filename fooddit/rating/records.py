"""What the store takes and gives: settings of a project, an item to rate, a label as it is kept."""

from dataclasses import dataclass
from typing import Any


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
