import numpy as np
import pytest

from fooddit.data.scenes import ATTRIBUTES
from fooddit.evaluation.alignment import align, wilson

SIZES = [len(values) for values in ATTRIBUTES.values()]
# Four prompts that share no attribute value where there are four to choose from.
WANTED = np.array([[(i + column) % size for column, size in enumerate(SIZES)] for i in range(4)])


def test_pictures_that_are_as_asked():
    measured = align(WANTED, WANTED, oracle_all_exact=0.999)
    assert measured.all_exact == 1 and set(measured.per_attribute.values()) == {1.0}
    assert measured.n == 4 and measured.oracle_all_exact == 0.999
    assert measured.interval == wilson(4, 4)


def test_fixed_numbers():
    read = WANTED.copy()
    read[1, 0] = (read[1, 0] + 1) % SIZES[0]
    read[2, 0] = (read[2, 0] + 1) % SIZES[0]
    read[2, 5] = (read[2, 5] + 1) % SIZES[5]
    measured = align(read, WANTED, oracle_all_exact=1.0)
    names = list(ATTRIBUTES)
    assert measured.all_exact == 0.5
    assert measured.per_attribute == {**dict.fromkeys(names, 1.0), names[0]: 0.5, names[5]: 0.75}
    assert measured.chance == pytest.approx(1 / np.prod(SIZES))
    assert measured.chance_per_attribute["kind"] == 1 / 12 and measured.chance_per_attribute["count"] == 1 / 3


def test_each_language_has_its_share_and_interval():
    read = WANTED.copy()
    read[1, 0] = (read[1, 0] + 1) % SIZES[0]
    measured = align(read, WANTED, languages=["en", "zh", "en", "zh"], oracle_all_exact=1.0)
    assert measured.per_language == {"en": (1.0, *wilson(2, 2)), "zh": (0.5, *wilson(1, 2))}
    assert measured.scalars()["align/all_exact_zh"] == 0.5


def test_the_shuffled_arm_compares_each_picture_with_another_ones_prompt():
    measured = align(WANTED, WANTED, oracle_all_exact=1.0)
    assert measured.shuffled_all_exact == 0
    # Neighbours differ in everything; the fourth wraps to the first, which it equals where there are three values.
    three = [name for name, size in zip(ATTRIBUTES, SIZES) if size == 3]
    assert measured.shuffled_per_attribute == {name: 0.25 if name in three else 0.0 for name in ATTRIBUTES}
    # Pictures that follow the prompt before theirs are wrong, and it is the shuffled arm that shows it.
    late = align(np.roll(WANTED, 1, axis=0), WANTED, oracle_all_exact=1.0)
    assert late.all_exact == 0 and late.shuffled_all_exact == 1


def test_a_draw_that_ignores_its_prompt_scores_chance_in_both_arms():
    rng = np.random.default_rng(0)
    read, wanted = (np.stack([rng.integers(0, size, 20_000) for size in SIZES], axis=1) for _ in range(2))
    measured = align(read, wanted, oracle_all_exact=1.0)
    for name, chance in measured.chance_per_attribute.items():
        assert measured.per_attribute[name] == pytest.approx(chance, abs=0.015)
        assert measured.shuffled_per_attribute[name] == pytest.approx(chance, abs=0.015)


@pytest.mark.parametrize(
    "successes, count, low, high",
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_equals_newcombe_1998_table_1(successes, count, low, high):
    found = wilson(successes, count)
    assert found == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))
    mirrored = wilson(count - successes, count)
    assert mirrored == (pytest.approx(1 - found[1]), pytest.approx(1 - found[0]))


def test_scalars_and_json_hold_every_attribute():
    measured = align(WANTED, WANTED, oracle_all_exact=1.0)
    assert {f"align/{name}" for name in ATTRIBUTES} < measured.scalars().keys()
    assert {"all_exact", "per_attribute", "chance", "oracle_all_exact", "shuffled_all_exact", "n"} < (
        measured.to_dict().keys()
    )
