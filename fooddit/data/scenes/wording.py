"""Captions of a scene in English and Chinese.

Short captions are names; dense ones say all eight attributes, each with one fixed word or phrase per value and
language, in sentences of several orders.
"""

from fooddit.data.captions import Caption
from fooddit.data.scenes.spec import SceneSpec

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


def captions(spec: SceneSpec) -> list[Caption]:
    """Every caption of the scene: three short and five dense ones in each language."""
    english = [Caption(text, "short", "en") for text in _english_names(spec)]
    chinese = [Caption(text, "short", "zh") for text in _chinese_names(spec)]
    english += [Caption(_english(spec, template), "dense", "en") for template in _EN_TEMPLATES]
    chinese += [Caption(_chinese(spec, template), "dense", "zh") for template in _ZH_TEMPLATES]
    return english + chinese


def prompt(spec: SceneSpec, language: str = "en") -> str:
    """One dense caption, its template chosen by the spec's seed; language is "en" or "zh"."""
    if language == "en":
        return _english(spec, _EN_TEMPLATES[spec.seed % len(_EN_TEMPLATES)])
    if language == "zh":
        return _chinese(spec, _ZH_TEMPLATES[spec.seed % len(_ZH_TEMPLATES)])
    raise ValueError(f"scenes have no captions in language {language!r}; it must be one of {LANGUAGES}")


def _english(spec: SceneSpec, template: str) -> str:
    text = template.format(
        dish=_english_dish(spec),
        lies="in" if spec.kind in _IN_BOWLS else "on",
        vessel=f"{_EN_SHAPE[spec.vessel_shape]} {spec.vessel_colour} {_english_vessel(spec)}",
        garnish=_EN_GARNISH[spec.garnish],
        placement=_EN_PLACEMENT[spec.placement],
        table=_EN_TABLE[spec.table],
        light=_EN_LIGHT[spec.light],
    )
    return text[0].upper() + text[1:]


def _chinese(spec: SceneSpec, template: str) -> str:
    return template.format(
        dish=_chinese_dish(spec),
        vessel=_chinese_vessel(spec),
        garnish=_ZH_GARNISH[spec.garnish],
        placement=_ZH_PLACEMENT[spec.placement],
        table=_ZH_TABLE[spec.table],
        light=_ZH_LIGHT[spec.light],
    )


def _english_names(spec: SceneSpec) -> tuple[str, ...]:
    name, dish, lies = _EN_DISH[spec.kind][0], _english_dish(spec), "in" if spec.kind in _IN_BOWLS else "on"
    return name, dish, f"{dish} {lies} a {spec.vessel_colour} {_english_vessel(spec)}"


def _chinese_names(spec: SceneSpec) -> tuple[str, ...]:
    dish = _chinese_dish(spec)
    return _ZH_DISH[spec.kind][0], dish, f"{dish}，{_chinese_vessel(spec)}"


def _english_dish(spec: SceneSpec) -> str:
    _, one, several = _EN_DISH[spec.kind]
    return (one if spec.count == 1 else several).format(n=_EN_NUMBER[spec.count])


def _chinese_dish(spec: SceneSpec) -> str:
    return _ZH_DISH[spec.kind][1].format(n=_ZH_NUMBER[spec.count])


def _english_vessel(spec: SceneSpec) -> str:
    return "bowl" if spec.kind in _IN_BOWLS else "plate"


def _chinese_vessel(spec: SceneSpec) -> str:
    vessel = "碗" if spec.kind in _IN_BOWLS else "盘"
    return f"{_ZH_COLOUR[spec.vessel_colour]}{_ZH_SHAPE[spec.vessel_shape]}{vessel}"
