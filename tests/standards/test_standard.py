"""The standards that ship are whole in both languages; a file that is none is refused by its key."""

import copy
import json
import re

import pytest
import yaml

from fooddit.standards import LANGUAGES, SHIPPED, StandardError, as_values, from_values, load_standard
from fooddit.standards import standard as module

HAN = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def generated():
    return load_standard("generated")


def texts(standard):
    yield from (standard.name, *standard.scale.values())
    for criterion in standard.criteria:
        yield criterion.name
        for sub in criterion.subs:
            yield from (sub.name, sub.asks, *sub.levels.values())
    for anomaly in standard.anomalies:
        yield from (anomaly.name, anomaly.means)


def test_five_criteria_nineteen_sub_standards_five_levels(generated):
    assert [criterion.id for criterion in generated.criteria] == ["form", "setting", "composition", "light", "texture"]
    assert len(generated.subs) == 19 and generated.levels == (1, 2, 3, 4, 5)
    assert {"floating", "background", "dish", "tableware", "hand", "face", "limb", "other"} == {
        anomaly.id for anomaly in generated.anomalies
    }


def test_photos_have_three_levels_and_not_the_questions_of_generated_pictures(generated):
    photos = load_standard("photos")
    assert photos.levels == (1, 2, 3)
    assert generated.subs.keys() - photos.subs.keys() == {"form.real", "setting.plausible"}
    assert [name for name in generated.subs if name in photos.subs] == list(photos.subs)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_text_is_there_in_both_languages(name):
    standard = load_standard(name)
    for text in texts(standard):
        assert tuple(text) == LANGUAGES
        assert HAN.search(text["zh"]) and not HAN.search(text["en"]), text
    # No two levels of a question mean the same.
    for sub in standard.subs.values():
        for language in LANGUAGES:
            assert len({text[language] for text in sub.levels.values()}) == len(standard.levels), sub.id


def test_ids_are_permanent(generated):
    """Scores, models and rewards are keyed by them: an id may be added with a version, none may go."""
    assert (
        list(generated.subs)
        == (
            "form.whole form.shape form.plating form.real setting.match setting.clean setting.props setting.plausible "
            "composition.size composition.place composition.angle composition.balance light.exposure light.modelling "
            "light.shadow light.colour texture.sharp texture.material texture.fresh"
        ).split()
    )


def test_a_level_or_question_that_is_not_there_is_refused(generated):
    generated.require("light.colour", 5)
    with pytest.raises(StandardError, match="standard 'generated' has no 'light.color'; expected one of form.whole"):
        generated.require("light.color", 5)
    for level in (0, 6, 2.5, True, "3"):
        with pytest.raises(StandardError, match="light.colour: found level .*; expected a whole number from 1 to 5"):
            generated.require("light.colour", level)


MINIMAL = {
    "id": "own",
    "version": 1,
    "name": {"en": "Own", "zh": "自定"},
    "scale": {1: {"en": "bad", "zh": "差"}, 2: {"en": "good", "zh": "好"}},
    "criteria": [
        {
            "id": "light",
            "name": {"en": "Light", "zh": "光"},
            "subs": [
                {
                    "id": "light.exposure",
                    "name": {"en": "Exposure", "zh": "曝光"},
                    "asks": {"en": "Right?", "zh": "对吗？"},
                    "levels": {1: {"en": "no", "zh": "否"}, 2: {"en": "yes", "zh": "是"}},
                }
            ],
        }
    ],
    "anomalies": [{"id": "other", "name": {"en": "Other", "zh": "其他"}, "means": {"en": "Else", "zh": "其他"}}],
}


def write(path, values):
    path.write_text(yaml.safe_dump(values, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def test_a_team_writes_its_own(tmp_path):
    standard = load_standard(write(tmp_path / "own.yaml", MINIMAL))
    assert list(standard.subs) == ["light.exposure"] and standard.subs["light.exposure"].levels[2]["zh"] == "是"


@pytest.mark.parametrize("name", SHIPPED)
def test_it_goes_through_json_and_back(name):
    standard = load_standard(name)
    assert from_values(json.loads(json.dumps(as_values(standard)))) == standard


def sub(values):
    return values["criteria"][0]["subs"][0]


WRONG = {
    "a language less": (lambda v: v["name"].pop("zh"), "name.zh: missing"),
    "an empty text": (lambda v: v["scale"][1].update(en=" "), "scale.1.en: is empty"),
    "a level less": (
        lambda v: sub(v)["levels"].pop(2) and sub(v)["levels"].update({3: {"en": "x", "zh": "乙"}}),
        r"criteria\[light\].subs\[light.exposure\].levels: expected levels 1, 2, ... in order, found \[1, 3\]",
    ),
    "levels that the scale has not": (
        lambda v: sub(v)["levels"].update({3: {"en": "x", "zh": "乙"}}),
        r"levels: describes \[1, 2, 3\], expected every level of the scale, \[1, 2\]",
    ),
    "an id of another criterion": (lambda v: sub(v).update(id="form.whole"), "found 'form.whole'; expected light.WORD"),
    "an id twice": (lambda v: v["criteria"].append(copy.deepcopy(v["criteria"][0])), "the id 'light' is there twice"),
    "an unknown key": (lambda v: sub(v).update(weight=2), r"subs\[light.exposure\].weight: unknown key"),
    "no criteria": (lambda v: v.update(criteria=[]), "criteria: expected at least one entry"),
    "a version that is none": (lambda v: v.update(version="one"), "version: expected a whole number, found 'one'"),
    "a list of texts": (lambda v: v.update(name=["Own"]), "name: expected keys with values"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(tmp_path, name):
    break_it, message = WRONG[name]
    values = copy.deepcopy(MINIMAL)
    break_it(values)
    with pytest.raises(StandardError, match=f"own.yaml: .*{message}"):
        load_standard(write(tmp_path / "own.yaml", values))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(StandardError, match="none.yaml: no such file; expected a standard's YAML file or one of gen"):
        load_standard(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    for text in (b"a: [", b"\xff\xfe\x00", b"a: 1\na: 2\n"):
        bad.write_bytes(text)
        with pytest.raises(StandardError, match="bad.yaml: cannot be read as YAML"):
            load_standard(bad)
    bad.write_text("- 1\n")
    with pytest.raises(StandardError, match="bad.yaml: the whole file: expected keys with values"):
        load_standard(bad)


def test_the_shipped_files_are_in_the_package():
    assert all((module._FOLDER / f"{name}.yaml").is_file() for name in SHIPPED)
