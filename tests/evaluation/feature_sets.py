"""Two sets of features of a seeded generator, for goldens that parity/test_evaluation.py recomputes."""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden/distances.json"
# Pictures in each set, features, and how far the sets are apart.
CASES = {"alike": (200, 16, 0.0), "apart": (200, 16, 0.5), "wide": (300, 64, 0.2), "few": (40, 64, 0.3)}


def feature_sets(case: str) -> tuple[np.ndarray, np.ndarray]:
    """float64, not negative and unevenly scaled, as features after a ReLU are."""
    count, dimension, shift = CASES[case]
    rng = np.random.default_rng(list(CASES).index(case))
    scale = np.linspace(1.5, 0.2, dimension)
    return tuple(np.maximum(rng.normal(size=(count, dimension)) * scale + by, 0) for by in (0.3, 0.3 + shift))
