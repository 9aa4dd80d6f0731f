"""report.html of an evaluation: figures with intervals, categories, the long tail, and the pictures themselves."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fooddit.evaluation.measurements import Material
from fooddit.evaluation.set_charts import STYLE, interval, number, spreads, table, with_interval
from fooddit.evaluation.set_gallery import Gallery
from fooddit.training.charts import bars
from fooddit.training.report_page import page

_NAMES = {"fid": "Fréchet distance (FID)", "kid": "Kernel distance (KID)", "cmmd": "CMMD"}
_AGAINST = {
    "same_dishes": "held-out photos of the same dishes",
    "training": "training pictures",
}


def set_page(report: Mapping[str, Any], material: Material) -> str:
    """The whole document, pictures inside. `report`: of `set_report`, with "title" and "subtitle"."""
    gallery = Gallery(material, report["samples"])
    by_clip = report["fit"] is not None and report["fit"]["by"] == "clip"
    sections = [
        _figures(report),
        gallery.beside_photos(),
        *(_distances(network) for network in report["networks"]),
        _fit(report["fit"]),
        gallery.extremes((lambda fit: f"cosine {fit:.3f}") if by_clip else (lambda fit: f"{fit:.0%} of attributes")),
        _categories(report),
        _long_tail(report),
        _diversity(report["networks"], gallery),
        _nearest(report["memorisation"], gallery),
        _method(report),
    ]
    return page(report["title"], report["subtitle"], sections, STYLE)


def _figures(report: Mapping) -> str:
    network, fit, memory = report["networks"][0], report["fit"], report["memorisation"]
    against = network["same_dishes"] if network["same_dishes"]["pictures"] else network["training"]
    figures = []
    for name in ("kid", "fid"):
        if against["pictures"]:
            real = against["real"] and f"real photos {number(against['real'][name]['value'])}"
            figures.append((_NAMES[name], number(against["pictures"][name]["value"]), real))
    if fit is not None and fit["by"] == "clip":
        beside = f"real photos {fit['real']['value']:.3f}" if "real" in fit else None
        figures.append(("Cosine with the prompt", f"{fit['pictures']['value']:.3f}", beside))
    elif fit is not None:
        figures.append(("Prompts met exactly", f"{fit['all_exact']:.1%}", f"chance 1 in {1 / fit['chance']:,.0f}"))
    if "ratio" in network["diversity"]:
        figures.append(("Diversity of the set", f"{network['diversity']['ratio']:.2f}", "of real photos'"))
    if memory is not None:
        beside = f"hold-out photos {memory['holdout_copied_share']:.1%}"
        figures.append(("Near one training picture", f"{memory['copied_share']:.1%}", beside))
    cells = (
        f"<div><dt>{html.escape(title)}</dt><dd>{value}</dd><dd class='beside'>{beside or ''}</dd></div>"
        for title, value, beside in figures
    )
    return f'<dl class="figures">{"".join(cells)}</dl>'


def _distances(network: Mapping) -> str:
    rows = []
    for against, words in _AGAINST.items():
        pictures, real = network[against]["pictures"], network[against]["real"]
        for name in _NAMES:
            if pictures and name in pictures:
                rows.append([f"{_NAMES[name]}, {words}", *_cells(pictures, name), *_cells(real, name)])
    if not rows:
        return ""
    head = ("", "these pictures", "95 % interval", "n", "real photos", "95 % interval", "n")
    return (
        f"<h2>Distances from real pictures, {html.escape(network['name'])}</h2>"
        f'<p class="note">The smaller, the more alike. {_caution(network)}</p>{table(head, rows)}'
    )


def _caution(network: Mapping) -> str:
    pictures = network["same_dishes"]["pictures"] or network["training"]["pictures"]
    texts = ["Beside each, what as many real photos of other dishes give in place of the pictures."]
    if network["knows_only_scenes"]:
        texts.append(
            "<strong>This network was trained on drawn scenes and has never seen a photo: its figures show that the "
            "evaluation runs, not how good these pictures are.</strong> Give --features inception:FILE or eclip:DIR."
        )
    fid = pictures["fid"]
    if fid["bias"] is not None:
        least = "at least " if pictures["singular"] else ""
        texts.append(
            f"A Fréchet distance is the larger the fewer the pictures: of {number(fid['value'])}, {least}"
            f"{number(fid['bias'])} comes from their number. The kernel distance is not, and is zero for sets alike."
        )
    published = network["description"].get("network") == "inception-v3"
    texts.append(
        "Values compare only where pictures are as many, as large, and seen by the same network"
        + (" and resizing." if published else f"; {html.escape(network['name'])} is not the network of published FIDs.")
    )
    return " ".join(texts)


def _cells(distances: Mapping | None, name: str) -> list[str]:
    if not distances:
        return ["", "", ""]
    return [
        number(distances[name]["value"]),
        interval(distances[name]),
        f"{distances['n']:,} : {distances['real_n']:,}",
    ]


def _fit(fit: Mapping | None) -> str:
    if fit is None:
        return ""
    if fit["by"] == "clip":
        names = {"pictures": "these pictures", "real": "the dishes' own photos", "shuffled": "others' prompts"}
        rows = [(text, fit[name], "", False) for name, text in names.items() if name in fit]
        note = "Cosine of the picture's and the prompt's E-CLIP vectors."
        return f'<h2>Do they fit their prompts?</h2><p class="note">{note}</p>{spreads(rows, digits=3)}'
    by_chance = fit["chance_per_attribute"]
    rows = [(_words(name), value, by_chance[name]) for name, value in fit["per_attribute"].items()]
    rows.append(("all of them", fit["all_exact"], fit["chance"]))
    note = (
        f"Attributes read back from the pixels; with the prompts shuffled {fit['shuffled_all_exact']:.1%} are exact, "
        f"of real pictures {fit['oracle_all_exact']:.1%}. The tick is chance."
    )
    return f'<h2>Do they fit their prompts?</h2><p class="note">{note}</p>{bars(rows)}'


def _categories(report: Mapping) -> str:
    name = report["networks"][0]["name"]
    by_distance, by_fit = [], []
    for row in report["categories"]:
        label, count = row["name"], f"{row['pictures']}"
        distances = row["distances"].get(name)
        if distances and distances["kid"]["low"] is not None:
            by_distance.append((label, distances["kid"], count, row["long_tail"]))
        if row["fit"] and row["fit"]["low"] is not None:
            by_fit.append((label, row["fit"], count, row["long_tail"]))
    overall = report["networks"][0]["same_dishes"]["pictures"]
    mark = overall["kid"]["value"] if overall else None
    charts = [
        ("Kernel distance from the photos of the same dishes", spreads(by_distance, mark=mark)),
        ("Fit to the prompt", spreads(by_fit, digits=3)),
    ]
    if not any(drawn for _, drawn in charts):
        return ""
    colour = " Red is the long tail." if any(row[3] for row in by_distance + by_fit) else ""
    left = len(report["categories"]) - len(by_distance)
    few = f" {left} more, with fewer than five pictures or without photos, are in report.json." if left else ""
    note = f"With 95 % intervals, and the number of pictures; the tick is all categories together.{colour}{few}"
    drawn = "".join(f"<h3>{title}</h3>{chart}" for title, chart in charts if chart)
    return f'<h2>By category</h2><p class="note">{note}</p>{drawn}'


def _long_tail(report: Mapping) -> str:
    found, name = report["long_tail"], report["networks"][0]["name"]
    if not found["categories"] or not found["rest"]["pictures"]:
        return ""
    others = {"fit": "fit to the prompt", "nearest": "to the nearest training picture"}
    others = {key: title for key, title in others.items() if found["rest"][key]}
    head = ("", "pictures", "photos", _NAMES["kid"], _NAMES["fid"], *others.values())
    rows = []
    for key, title in (("tail", "long tail"), ("rest", "all others")):
        row = found[key]
        distances = row["distances"].get(name)
        both = [with_interval(distances[kind]) if distances else "too few" for kind in ("kid", "fid")]
        means = [with_interval(row[kind], digits=3) if row[kind] else "" for kind in others]
        rows.append([title, str(row["pictures"]), str(row["photos"]), *both, *means])
    listed = html.escape(", ".join(found["categories"]))
    note = f"Categories with fewer than {found['limit']:,.0f} pictures in the dataset: {listed}."
    return f'<h2>The long tail</h2><p class="note">{note}</p>{table(head, rows)}'


def _diversity(networks: Sequence[Mapping], gallery: Gallery) -> str:
    found = networks[0]["diversity"]
    names = {
        "of_set": "pictures, different prompts",
        "real": "photos, different dishes",
        "within_prompt": "pictures, one prompt",
        "within_dish": "photos, one dish",
    }
    rows = [(text, found[name], "", False) for name, text in names.items() if name in found]
    note = (
        "Mean distance of two pictures in the network's features. A model that has collapsed draws pictures that are "
        "closer together than photos are."
    )
    return f'<h2>Diversity</h2><p class="note">{note}</p>{spreads(rows)}<h3>Seed by seed</h3>{gallery.seeds()}'


def _nearest(memory: Mapping | None, gallery: Gallery) -> str:
    if memory is None:
        return ""
    note = (
        f"Median distance to the nearest training picture {memory['generated_median']:.3f}, of {memory['holdout_n']} "
        f"hold-out photos {memory['holdout_median']:.3f} (root mean square of 32 x 32 RGB in 0 to 1). "
        f"{memory['copied_share']:.1%} are at most half as far from one as from the ten nearest on average; of the "
        f"photos {memory['holdout_copied_share']:.1%}. Below, those that are most like one training picture, which is "
        "at the right."
    )
    return f'<h2>Drawn or remembered?</h2><p class="note">{note}</p>{gallery.nearest()}'


def _method(report: Mapping) -> str:
    height, width = report["shape"]
    networks = [f"{n['name']}: {json.dumps(n['description'], ensure_ascii=False)}" for n in report["networks"]]
    rows = {
        "pictures": f"{report['pictures']} of {report['prompts']} prompts; {report['repeats']} more for diversity",
        "real photos": f"{report['photos_of_the_same_dishes']} held-out ones of the same dishes, "
        f"{report['training_pictures']} training pictures; the middle, resized to {width} x {height}",
        "networks": "; ".join(networks),
        "intervals": "95 %, by resampling prompts and photos; of distances centred on the value",
        **report.get("settings", {}),
    }
    listed = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>" for k, v in rows.items())
    return f'<details><summary>How it was measured</summary><dl class="config">{listed}</dl></details>'


def _words(name: str) -> str:
    return name.replace("_", " ")
