"""Strengths from pairwise choices, with intervals: the Bradley-Terry model."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_Z = 1.96


@dataclass(frozen=True)
class Strengths:
    """Attributes:
    values: log-strengths of mean 0: i is chosen over j with odds exp(values[i] - values[j]).
    low, high: 95 % intervals of each against the mean of all, from the curvature of the likelihood.
    compared: choices that each item was part of, by weight.
    """

    values: Float[np.ndarray, "items"]
    low: Float[np.ndarray, "items"]
    high: Float[np.ndarray, "items"]
    compared: Float[np.ndarray, "items"]


def bradley_terry(
    choices: Int[np.ndarray, "choices 2"],
    items: int,
    weights: Float[np.ndarray, "choices"] | None = None,
    penalty: float = 0.01,
) -> Strengths:
    """Strengths of `items` items from choices (chosen, other), by penalised maximum likelihood (Bradley & Terry 1952).

    Args:
      weights: of the choices, 1 if None; a tie is a choice each way of weight 0.5.
      penalty: times the sum of squared strengths is what is added to the negative log-likelihood. Without it an item
        that was always chosen would be infinitely strong.

    Raises:
      ValueError: an index that is no item, an item chosen over itself, or a penalty that is not above 0.
    """
    choices = np.asarray(choices)
    if choices.ndim != 2 or choices.shape[1] != 2:
        raise ValueError(f"choices: found shape {choices.shape}, expected (choices, 2): chosen and other")
    if len(choices) and not (0 <= choices.min() and choices.max() < items):
        raise ValueError(f"choices: found indices {choices.min()} to {choices.max()}, expected 0 to {items - 1}")
    if (choices[:, 0] == choices[:, 1]).any():
        raise ValueError("choices: an item is chosen over itself")
    if penalty <= 0:
        raise ValueError(f"penalty: found {penalty}, expected a number above 0")
    wins = np.zeros((items, items))
    np.add.at(wins, (choices[:, 0], choices[:, 1]), 1.0 if weights is None else np.asarray(weights, float))
    values = _fit(wins, penalty)
    _, curvature = _derivatives(values, wins, penalty)
    # Of differences to the mean: the direction in which all grow alike says nothing.
    centre = np.eye(items) - 1 / items
    reach = _Z * np.sqrt(np.diag(centre @ np.linalg.inv(curvature) @ centre))
    return Strengths(values, values - reach, values + reach, (wins + wins.T).sum(axis=1))


def _fit(wins: np.ndarray, penalty: float) -> np.ndarray:
    """Newton's method; the loss is strictly convex, and a step that does not lower it is halved."""
    values = np.zeros(len(wins))
    loss = _loss(values, wins, penalty)
    for _ in range(100):
        slope, curvature = _derivatives(values, wins, penalty)
        step = np.linalg.solve(curvature, slope)
        while (lower := _loss(values - step, wins, penalty)) > loss and np.abs(step).max() > 1e-12:
            step /= 2
        values, loss = values - step, lower
        if np.abs(step).max() < 1e-10:
            break
    return values - values.mean()


def _loss(values: np.ndarray, wins: np.ndarray, penalty: float) -> float:
    behind = values[None, :] - values[:, None]
    return float((wins * np.logaddexp(0, behind)).sum() + penalty * (values**2).sum())


def _derivatives(values: np.ndarray, wins: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    chosen = 1 / (1 + np.exp(values[None, :] - values[:, None]))
    games = wins + wins.T
    slope = (games * chosen - wins).sum(axis=1) + 2 * penalty * values
    shared = games * chosen * (1 - chosen)
    return slope, np.diag(shared.sum(axis=1) + 2 * penalty) - shared
