"""The page's colours, light and dark: text and marks have enough contrast (WCAG AA)."""

import re
from pathlib import Path

import pytest

import ctrkit.report
from ctrkit.report.charts.svg import TOKENS

CSS = Path(ctrkit.report.__file__).parent / "templates" / "report.css"
TEXT, MARK = 4.5, 3.0  # WCAG 2.1, success criteria 1.4.3 and 1.4.11

# What is written in a colour, and on which grounds.
GROUNDS = ("page", "surface")
WRITTEN = {
    "ink": (*GROUNDS, "code", "band", *(f"heat-{level}" for level in range(5))),
    "muted": (*GROUNDS, "band"),
    "accent": GROUNDS,
    "good": GROUNDS,
    "bad": GROUNDS,
}
# Tiles say in digits what their colour says; a line or an idle lane carries nothing by itself.
SILENT = ("line", "surface", *(f"heat-{level}" for level in range(5)))


def colors_of(block: str) -> dict[str, str]:
    found = re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{3,6});", block)
    return {name: "#" + "".join(2 * c for c in v[1:]) if len(v) == 4 else v for name, v in found}


def schemes() -> dict[str, dict[str, str]]:
    light, dark, *_ = re.findall(r":root \{(.*?)\}", CSS.read_text(), flags=re.DOTALL)
    return {"light": colors_of(light), "dark": colors_of(light) | colors_of(dark)}


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2.1 defines it, of `#rrggbb`."""
    channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_measure_itself() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(scheme: str) -> None:
    colors = schemes()[scheme]
    low = {
        f"{text} on {ground}": round(contrast(colors[text], colors[ground]), 2)
        for text, grounds in WRITTEN.items()
        for ground in grounds
    }
    assert {pair: value for pair, value in low.items() if value < TEXT} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_of_charts_can_be_seen(scheme: str) -> None:
    colors = schemes()[scheme]
    assert set(TOKENS) <= set(colors)
    values = {
        name: round(contrast(colors[name], colors["surface"]), 2)
        for name in TOKENS
        if name not in SILENT
    }
    assert {name: value for name, value in values.items() if value < MARK} == {}
