"""Captions of a scene in English and Chinese.

Short captions are names; dense ones say all eight attributes, each with one fixed word or phrase per value and
language, in sentences of several orders.
"""

from collections.abc import Mapping
from typing import NamedTuple

from fooddit.data.captions import Caption
from fooddit.data.scenes.spec import Dish, SceneSpec

# kind: (name, one unit, several units); {n} is the number.
_EN_DISH = {
    "noodles": ("noodles", "noodles with {n} fish cake", "noodles with {n} fish cakes"),
    "dumplings": ("dumplings", "{n} dumpling", "{n} dumplings"),
    "pizza": ("pizza", "{n} slice of pizza", "{n} slices of pizza"),
    "sushi": ("sushi", "{n} piece of sushi", "{n} pieces of sushi"),
    "egg_rice": ("rice with fried egg", "rice with {n} fried egg", "rice with {n} fried eggs"),
    "cake": ("cake", "{n} slice of cake", "{n} slices of cake"),
    "skewers": ("skewers", "{n} grilled skewer", "{n} grilled skewers"),
    "salad": ("salad", "salad with {n} cherry tomato", "salad with {n} cherry tomatoes"),
    "soup": ("soup", "soup with {n} tofu cube", "soup with {n} tofu cubes"),
    "burger": ("burger", "{n} burger", "{n} burgers"),
    "fish": ("fish", "{n} whole fish", "{n} whole fish"),
    "donut": ("donut", "{n} donut", "{n} donuts"),
}
_EN_NUMBER = {1: "one", 2: "two", 3: "three"}
_EN_SHAPE = {"round": "a round", "square": "a square", "oval": "an oval"}
_EN_TABLE = {
    "wood": "a wooden table",
    "marble": "a marble table",
    "slate": "a slate table",
    "cloth": "a gingham tablecloth",
}
_EN_GARNISH = {
    "cilantro": "a sprig of cilantro",
    "chili": "a chili",
    "lemon": "a lemon wedge",
    "flower": "a purple flower",
}
_EN_PLACEMENT = {"left": "on the left", "centre": "in the centre", "right": "on the right"}
_EN_LIGHT = {"morning": "cool morning light", "noon": "bright noon light", "evening": "warm evening light"}
_EN_TEMPLATES = (
    "{dish} {lies} {vessel}, garnished with {garnish}, {placement} of {table} in {light}.",
    "{table} in {light}: {placement}, {vessel} holds {dish}, garnished with {garnish}.",
    "{dish} {lies} {vessel} with {garnish} on the rim, seen from above in {light}, {placement} of {table}.",
    "In {light}, {vessel} {placement} of {table} holds {dish}, with {garnish} on the side.",
    "{vessel} holding {dish} and {garnish}, placed {placement} of {table}, in {light}.",
)

_ZH_DISH = {
    "noodles": ("汤面", "放了{n}片鱼板的汤面"),
    "dumplings": ("饺子", "{n}只饺子"),
    "pizza": ("披萨", "{n}块披萨"),
    "sushi": ("寿司", "{n}个寿司"),
    "egg_rice": ("煎蛋饭", "放了{n}个煎蛋的米饭"),
    "cake": ("蛋糕", "{n}块蛋糕"),
    "skewers": ("烤串", "{n}根烤串"),
    "salad": ("沙拉", "放了{n}颗小番茄的沙拉"),
    "soup": ("豆腐汤", "放了{n}块豆腐的浓汤"),
    "burger": ("汉堡", "{n}个汉堡"),
    "fish": ("鱼", "{n}条鱼"),
    "donut": ("甜甜圈", "{n}个甜甜圈"),
}
_ZH_NUMBER = {1: "一", 2: "两", 3: "三"}
_ZH_SHAPE = {"round": "圆", "square": "方", "oval": "椭圆"}
_ZH_COLOUR = {
    "white": "白色",
    "black": "黑色",
    "blue": "蓝色",
    "red": "红色",
    "green": "绿色",
    "yellow": "黄色",
}
_ZH_TABLE = {"wood": "木桌", "marble": "大理石桌面", "slate": "石板桌", "cloth": "格子桌布"}
_ZH_GARNISH = {"cilantro": "香菜", "chili": "辣椒", "lemon": "柠檬", "flower": "紫花"}
_ZH_PLACEMENT = {"left": "左侧", "centre": "中央", "right": "右侧"}
_ZH_LIGHT = {"morning": "清晨的冷光", "noon": "正午的亮光", "evening": "傍晚的暖光"}
_ZH_TEMPLATES = (
    "{table}{placement}摆着{vessel}，盛着{dish}，以{garnish}点缀，{light}。",
    "{light}下，{vessel}里盛着{dish}，用{garnish}点缀，摆在{table}{placement}。",
    "俯拍：{table}{placement}的{vessel}里有{dish}，旁边配{garnish}，{light}。",
    "{vessel}放在{table}{placement}，里面是{dish}，配{garnish}，{light}。",
    "{dish}，配{garnish}，盛在{vessel}里，摆在{table}{placement}，{light}。",
)

# Dishes that come in a bowl; the others come on a plate.
_IN_BOWLS = ("noodles", "egg_rice", "salad", "soup")
LANGUAGES = ("en", "zh")
_TEMPLATES = {"en": _EN_TEMPLATES, "zh": _ZH_TEMPLATES}


class Said(NamedTuple):
    """What a caption calls the vessel (in a sentence, and shorter in a name) and the table."""

    vessel: str
    vessel_in_name: str
    table: str


def captions(spec: SceneSpec) -> list[Caption]:
    """Every caption of the scene: three short and five dense ones in each language."""
    return dish_captions(spec, {language: _said(spec, language) for language in LANGUAGES})


def prompt(spec: SceneSpec, language: str = "en") -> str:
    """One dense caption, its template chosen by the spec's seed; language is "en" or "zh"."""
    require_language(language)
    return dish_prompt(spec, _said(spec, language), language)


def dish_captions(dish: Dish, said: Mapping[str, Said]) -> list[Caption]:
    """`captions` with other words for the vessel and the table in each language."""
    texts = [
        (language, style, text)
        for language, words in said.items()
        for style, found in (("short", _names(dish, words, language)), ("dense", _sentences(dish, words, language)))
        for text in found
    ]
    return [Caption(text, style, language) for language, style, text in texts]


def dish_prompt(dish: Dish, said: Said, language: str) -> str:
    """`prompt` with other words for the vessel and the table."""
    return _sentence(dish, said, language, dish.seed % len(_TEMPLATES[language]))


def require_language(language: str) -> None:
    """ValueError for one that scenes have no captions in."""
    if language not in LANGUAGES:
        raise ValueError(f"scenes have no captions in language {language!r}; it must be one of {LANGUAGES}")


def vessel_words(dish: Dish, language: str) -> tuple[str, str]:
    """The vessel's shape (in English with its article) and what kind of vessel it is."""
    bowl = dish.kind in _IN_BOWLS
    if language == "en":
        return _EN_SHAPE[dish.vessel_shape], "bowl" if bowl else "plate"
    return _ZH_SHAPE[dish.vessel_shape], "碗" if bowl else "盘"


def _said(spec: SceneSpec, language: str) -> Said:
    shape, vessel = vessel_words(spec, language)
    if language == "en":
        colour = spec.vessel_colour
        return Said(f"{shape} {colour} {vessel}", f"a {colour} {vessel}", _EN_TABLE[spec.table])
    vessel = f"{_ZH_COLOUR[spec.vessel_colour]}{shape}{vessel}"
    return Said(vessel, vessel, _ZH_TABLE[spec.table])


def _sentences(dish: Dish, said: Said, language: str) -> list[str]:
    return [_sentence(dish, said, language, number) for number in range(len(_TEMPLATES[language]))]


def _sentence(dish: Dish, said: Said, language: str, number: int) -> str:
    garnish, placement, light = (
        (_EN_GARNISH, _EN_PLACEMENT, _EN_LIGHT) if language == "en" else (_ZH_GARNISH, _ZH_PLACEMENT, _ZH_LIGHT)
    )
    text = _TEMPLATES[language][number].format(
        dish=_counted(dish, language),
        lies=_lies(dish),
        vessel=said.vessel,
        garnish=garnish[dish.garnish],
        placement=placement[dish.placement],
        table=said.table,
        light=light[dish.light],
    )
    return text[0].upper() + text[1:]


def _names(dish: Dish, said: Said, language: str) -> tuple[str, str, str]:
    counted = _counted(dish, language)
    if language == "en":
        return _EN_DISH[dish.kind][0], counted, f"{counted} {_lies(dish)} {said.vessel_in_name}"
    return _ZH_DISH[dish.kind][0], counted, f"{counted}，{said.vessel_in_name}"


def _counted(dish: Dish, language: str) -> str:
    if language == "zh":
        return _ZH_DISH[dish.kind][1].format(n=_ZH_NUMBER[dish.count])
    _, one, several = _EN_DISH[dish.kind]
    return (one if dish.count == 1 else several).format(n=_EN_NUMBER[dish.count])


def _lies(dish: Dish) -> str:
    return "in" if dish.kind in _IN_BOWLS else "on"
