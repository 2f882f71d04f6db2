"""Turns a chart into inline SVG: drawn wide and narrow, coloured by the page, self-contained.

Colours are written as the hex values of TOKENS, and then replaced by CSS variables, so that one SVG
works for light, dark and print. One unit is one CSS pixel at the chart's own width.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctrkit.report.words import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE_PX, NARROW_PX = 900, 340
FONT_PX = 12.0
# The average width of a sans-serif character at FONT_PX, slightly overestimated.
CHARACTER_PX = 6.7

# What each colour stands for; values only have to differ, since the style sheet sets the colours.
_NAMES = (
    "ink", "muted", "line", "surface", "accent", "bad",
    "wait", "transfer", "forward", "backward", "optimizer", "other", "training", "validation",
    "heat-0", "heat-1", "heat-2", "heat-3", "heat-4", "fetch", "collate", "ipc", "asleep",
)  # fmt: skip
TOKENS = {name: f"#{0x101000 + number:06x}" for number, name in enumerate(_NAMES)}
_OF_HEX = {value: name for name, value in TOKENS.items()}
_PX_PER_INCH = 72
_MOST_ALT = 2000


@dataclass(frozen=True)
class Key:
    """A line of a legend: a colour of TOKENS, its mark, and its meaning."""

    token: str
    label: str
    mark: str = "square"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart as SVG text at two widths; `alt` describes it in words."""

    title: str
    alt: str
    wide: str
    narrow: str
    keys: tuple[Key, ...] = ()
    note: str = ""


class Canvas:
    """A drawing of a fixed size, with panels placed in pixels from its top left corner."""

    def __init__(self, width_px: float, height_px: float) -> None:
        from matplotlib.figure import Figure

        self.width_px, self.height_px = width_px, height_px
        self.figure = Figure(figsize=(width_px / _PX_PER_INCH, height_px / _PX_PER_INCH))

    def panel(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes in that rectangle, without a frame, with a light grid along x only."""
        axes = self.figure.add_axes(
            (
                left / self.width_px, 1 - (top + height) / self.height_px,
                width / self.width_px, height / self.height_px,
            )
        )  # fmt: skip
        axes.set_facecolor("none")
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, pad=5, colors=TOKENS["muted"], labelsize=FONT_PX - 1)
        axes.set_axisbelow(True)
        axes.grid(axis="x", color=TOKENS["line"], linewidth=1)
        return axes


def draw(
    name: str,
    paint: Callable[[float], Canvas],
    *,
    title: str,
    alt: str,
    keys: Sequence[Key] = (),
    note: str = "",
) -> Chart:
    """The chart that `paint(width_px)` draws, at both widths.

    Args:
        name: letters, digits and hyphens, unique in the page; it starts the ids in the SVG.
        paint: draws at a width in pixels.
        title: the chart's title.
        alt: a description in words.
        keys: the legend.
        note: what one must know to read it.
    """
    with _style():
        wide = _svg_text(paint(WIDE_PX), f"{name}-w", alt)
        narrow = _svg_text(paint(NARROW_PX), f"{name}-n", alt)
    return Chart(title=title, alt=alt, wide=wide, narrow=narrow, keys=tuple(keys), note=note)


@contextmanager
def _style() -> Iterator[None]:
    """Keep text as text, without `$` markup; the browser handles missing characters."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support")
        matplotlib.rcdefaults()  # ignore the user's own matplotlibrc
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none", "text.parse_math": False, "font.family": "DejaVu Sans",
                "font.size": FONT_PX, "text.color": TOKENS["ink"],
            }
        )  # fmt: skip
        yield


def _svg_text(canvas: Canvas, name: str, alt: str) -> str:
    import matplotlib

    file = io.StringIO()
    canvas.figure.patch.set_visible(False)
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        canvas.figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\n?", "", body, flags=re.DOTALL)
    body = _unique_ids(body, name)
    body = re.sub(r"#1010[0-9a-f]{2}", lambda m: f"var(--{_OF_HEX[m[0]]})", body)
    body = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r' (?:d|x|y|transform)="[^"]*"', _rounded, body)
    body = re.sub(r"\s*\n\s*", "\n", body).strip()
    size = f"{canvas.width_px:g} {canvas.height_px:g}"
    label = html.escape(clean(alt, _MOST_ALT), quote=True)
    return f'<svg viewBox="0 0 {size}" role="img" aria-label="{label}">\n{body}\n</svg>'


def _rounded(match: re.Match[str]) -> str:
    """Round coordinates to a hundredth of a pixel."""
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", match[0])


def _unique_ids(body: str, name: str) -> str:
    """Drop ids that nothing refers to, and prefix the others with the chart's name."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))

    def rename(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    body = re.sub(r' id="([^"]*)"', rename, body)
    return re.sub(r'(url\(#|href="#)([^)"]+)', rf"\g<1>{name}-\g<2>", body)


def fitting(text: str, width_px: float, font_px: float = FONT_PX) -> str:
    """The text made safe, and cut to a width in pixels."""
    most = max(4, int(width_px / (CHARACTER_PX * font_px / FONT_PX)))
    return clean(text, most)


def text_px(texts: Sequence[str], font_px: float = FONT_PX) -> float:
    """Approximate width of the widest text, in pixels."""
    return max((len(text) for text in texts), default=0) * CHARACTER_PX * font_px / FONT_PX
