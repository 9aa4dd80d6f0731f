"""`fooddit standard`: a written standard as text, or what is wrong with its file."""

import argparse

from fooddit.standards import LANGUAGES, SHIPPED, Standard, load_standard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fooddit standard`."""
    parser.add_argument("source", metavar="NAME|FILE", help=f"{', '.join(SHIPPED)}, or a YAML file of the same form")
    parser.add_argument("--language", choices=LANGUAGES, default=LANGUAGES[0], help="of the texts (en)")


def run(args: argparse.Namespace) -> int:
    """Prints the standard; StandardError (a ValueError) names the file and the key of what is wrong."""
    print(as_text(load_standard(args.source), args.language))
    return 0


def as_text(standard: Standard, language: str) -> str:
    """All that a rater reads, in one language."""
    lines = [f"{standard.name[language]} ({standard.id}, version {standard.version})"]
    lines += [f"  {level}  {name[language]}" for level, name in standard.scale.items()]
    for criterion in standard.criteria:
        lines += ["", criterion.name[language]]
        for sub in criterion.subs:
            lines += ["", f"  {sub.name[language]} [{sub.id}]  {sub.asks[language]}"]
            lines += [f"    {level}  {text[language]}" for level, text in sub.levels.items()]
    lines += [""] + [f"  ! {a.name[language]} [{a.id}]  {a.means[language]}" for a in standard.anomalies]
    return "\n".join(lines)
