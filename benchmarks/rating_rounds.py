"""Three rounds of simulated raters through the real database: does agreement rise, and what for?

    python benchmarks/rating_rounds.py [--seeds 0 1 2 3 4] [--items 120]

Every picture has a hidden true level on each sub-standard. Raters see it with a bias and a noise of their own, now and
then press a key without looking, and one of them, a spammer, never looks. Three rate each picture; pictures on which
they are more than a level apart are asked again, twice. What reading the standard again does is an assumption (half of
bias and noise); what is measured is the protocol: whether alpha rises, whether the spammer is found, how far the means
are from the truth beside a single rater's levels.

Two arms must not look like it. Where nothing is read again, alpha rises all the same, because pictures were picked by
how far apart their raters were: that rise is the part of any rise which is no learning. Where levels are drawn by lot
there is no agreement in any round.
"""

import argparse
import uuid
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fooddit.evaluation.agreement import krippendorff_alpha
from fooddit.evaluation.raters import rater_reports
from fooddit.rating.database import open_database
from fooddit.rating.protocol import Ratings, ratings_of, to_ask_again
from fooddit.rating.records import Settings
from fooddit.rating.store import Store
from fooddit.standards import load_standard

ARMS = {"read again": 0.5, "nothing read again": 1.0, "levels by lot": None}
HONEST, RATERS_AN_ITEM, APART = 5, 3, 1
BIAS, NOISE, LAPSES = 0.4, (0.5, 0.9), 0.03
HEAD = (
    "arm", "alpha, round 1", "round 2", "round 3", "asked again", "spammer found, others wrongly", "error of the mean",
    "of one rater",
)  # fmt: skip
# Truths of pictures that a team would have rated: most in the middle.
MEAN, DEVIATION = 3.2, 0.9


@dataclass
class Simulated:
    """Somebody who rates: level = truth + bias + noise, rounded, and now and then any level at all."""

    bias: np.ndarray
    noise: float
    lapses: float

    def levels(self, truth: np.ndarray, reading: float, rng: np.random.Generator) -> np.ndarray:
        seen = truth + reading * (self.bias + self.noise * rng.normal(size=truth.shape))
        lapsed = rng.random(truth.shape) < self.lapses
        return np.where(lapsed, rng.integers(1, 6, truth.shape), np.clip(np.rint(seen), 1, 5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--items", type=int, default=120)
    arguments = parser.parse_args()
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for arm in ARMS:
        runs = [simulate(arm, seed, arguments.items) for seed in arguments.seeds]
        print(row(arm, runs))


def simulate(arm: str, seed: int, items: int) -> dict:
    """One seed of an arm."""
    rng, standard = np.random.default_rng(seed), load_standard("generated")
    subs = tuple(standard.subs)
    truth = np.clip(rng.normal(MEAN, DEVIATION, (items, len(subs))), 1, 5)
    lot = ARMS[arm] is None
    people = {
        f"rater {i}": Simulated(rng.normal(0, BIAS, len(subs)), rng.uniform(*NOISE), LAPSES) for i in range(HONEST)
    }
    people["spammer"] = Simulated(np.zeros(len(subs)), 0.0, 1.0)
    if lot:
        people = {name: Simulated(person.bias, person.noise, 1.0) for name, person in people.items()}
    keys = [f"{number:04}" for number in range(items)]
    alphas, asked = [], []
    with TemporaryDirectory() as folder:
        store = Store(open_database(f"sqlite:///{Path(folder) / 'ratings.db'}"))
        project = store.add_project("simulated", "none", standard, settings=Settings(RATERS_AN_ITEM, 0.0))
        store.add_items(project, [(key, [f"{key}.jpg"], {}) for key in keys])
        numbers = {name: store.rater(store.add_rater(name)).id for name in people}
        why: dict | None = None
        for round in range(1, 4):
            store.open_round(project, "first" if round == 1 else "again", why)
            reading = 1.0 if round == 1 or lot else ARMS[arm]
            rate(store, project, round, people, numbers, truth, subs, reading, rng)
            ratings = ratings_of(store.given(project), subs)
            alphas.append(np.mean([krippendorff_alpha(ratings.of(sub)) for sub in subs]))
            why = to_ask_again(ratings, APART)
            asked.append(len(why))
            if not why:
                break
        first = ratings_of(store.given(project, 1), subs)
    flagged = out_of_line(first)
    means, truths = ratings.without(flagged).mean(), truth[[keys.index(key) for key in ratings.keys]]
    rated = np.isfinite(means).all(axis=1)
    single = np.abs(first.without(flagged).levels - truth[[keys.index(key) for key in first.keys]][:, None])
    return {
        "alphas": alphas,
        "asked": asked,
        "flagged": flagged,
        "mean": np.abs(means - truths)[rated].mean(axis=1),
        "single": np.nanmean(single, axis=(1, 2)),
    }


def rate(store: Store, project: int, round: int, people, numbers, truth, subs, reading: float, rng) -> None:
    """Everybody rates one item after the other, in turn, until there is none for anybody."""
    waiting = list(people)
    while waiting:
        for name in list(waiting):
            asked = store.next_item(project, numbers[name])
            if asked is None:
                waiting.remove(name)
                continue
            levels = people[name].levels(truth[int(asked.key)], reading, rng).astype(int).tolist()
            values = {"levels": dict(zip(subs, levels))}
            store.give(project, numbers[name], round, asked.item, str(uuid.uuid4()), "levels", values)


def out_of_line(ratings: Ratings) -> list[str]:
    """Names of raters who do not follow the others, all sub-standards taken together."""
    together = ratings.levels.transpose(0, 2, 1).reshape(-1, len(ratings.raters))
    return [ratings.raters[report.rater] for report in rater_reports(together) if report.out_of_line]


def row(arm: str, runs: list[dict]) -> str:
    def over_seeds(values: list[float]) -> str:
        spread = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        return f"{np.mean(values):.3f} ± {spread:.3f}"

    alphas = [over_seeds([run["alphas"][min(i, len(run["alphas"]) - 1)] for run in runs]) for i in range(3)]
    asked = " ".join(f"{np.mean([run['asked'][min(i, len(run['asked']) - 1)] for run in runs]):.0f}" for i in range(2))
    found = sum("spammer" in run["flagged"] for run in runs)
    wrongly = sum(len(set(run["flagged"]) - {"spammer"}) for run in runs)
    errors = [over_seeds([run[name].mean() for run in runs]) for name in ("mean", "single")]
    return (
        f"| {arm} | {' | '.join(alphas)} | {asked} | {found} of {len(runs)}, {wrongly} of {HONEST * len(runs)} "
        f"| {errors[0]} | {errors[1]} |"
    )


if __name__ == "__main__":
    main()
