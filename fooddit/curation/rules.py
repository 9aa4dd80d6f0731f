"""The rules of a curation: what each measures, in which unit, and from where on a picture is left out."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from fooddit.curation import pixel_rules
from fooddit.curation.view import SIDE, View


@dataclass(frozen=True)
class PixelLimits:
    """Limits of the rules that look at pixels alone; a picture beyond one is left out.

    Attributes:
      short_side: least shorter side, in pixels.
      aspect_ratio: most of longer over shorter side.
      blur_radius: most blur of the sharpest edges, in pixels of a copy of 512 pixels a side.
      brightest: least luma of the brightest fiftieth, from 0 to 1.
      burnt_out: most of the middle that has no detail, from 0 to 1.
      frame: widest frame of one colour, as a share of its side.
      seam: most of a straight line across the whole picture that is a seam, from 0 to 1.
    """

    short_side: float = 256.0
    aspect_ratio: float = 3.0
    blur_radius: float = 1.6
    brightest: float = 0.35
    burnt_out: float = 0.5
    frame: float = 0.01
    seam: float = 0.5


@dataclass(frozen=True)
class Rule:
    """A measure of a picture. `at_least`: whether its limit is the least that is good enough, or else the most.

    `reason` says in English and Chinese what is wrong with a picture that is beyond the limit.
    """

    name: str
    score: Callable[[View], float]
    unit: str
    at_least: bool
    reason: Mapping[str, str]

    def passes(self, score: float, limit: float) -> bool:
        """A score that is no number passes nothing."""
        return score >= limit if self.at_least else score <= limit


def _rule(score: Callable[[View], float], unit: str, en: str, zh: str, at_least: bool = False) -> Rule:
    return Rule(score.__name__, score, unit, at_least, {"en": en, "zh": zh})


PIXEL_RULES = (
    _rule(pixel_rules.short_side, "px", "low resolution", "分辨率过低", at_least=True),
    _rule(pixel_rules.aspect_ratio, "", "too long a shape", "长宽比过大"),
    _rule(pixel_rules.blur_radius, f"px of {SIDE}", "blurred", "模糊"),
    _rule(pixel_rules.brightest, "luma", "too dark", "过暗", at_least=True),
    _rule(pixel_rules.burnt_out, "share", "burnt out", "过曝"),
    _rule(pixel_rules.frame, "of a side", "a frame", "边框"),
    _rule(pixel_rules.seam, "of a line", "a collage", "拼图"),
)


@dataclass(frozen=True)
class Verdict:
    """What the rules say of a picture: a score each, and the names of those it is left out for; () is accepted."""

    scores: Mapping[str, float]
    failed: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether no rule leaves it out."""
        return not self.failed


def judge_pixels(view: View, limits: PixelLimits) -> Verdict:
    """Every rule is asked, so that a picture has all its reasons."""
    scores = {rule.name: rule.score(view) for rule in PIXEL_RULES}
    wanted = asdict(limits)
    failed = (rule.name for rule in PIXEL_RULES if not rule.passes(scores[rule.name], wanted[rule.name]))
    return Verdict(scores, tuple(failed))
