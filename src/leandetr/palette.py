"""Colours and letters of everything that is drawn: class k looks the same in every picture."""

import re
from functools import cache

from PIL import ImageFont

COLOURS = (
    "#e6194b",
    "#0a78ff",
    "#2fb344",
    "#ff8c00",
    "#a64dff",
    "#00b8b0",
    "#ffd400",
    "#ff3fa4",
    "#8b5a2b",
    "#b6e000",
)
"""Class k is drawn in colour k modulo ten."""

FONTS = (
    "NotoSansCJK-Regular.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "msyh.ttc",
    "DejaVuSans.ttf",
)
"""Fonts of the system that are tried for names beyond Latin letters, widest range first."""

LONGEST = 40
"""Letters of a class name that are shown, at the most."""

CONTROL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
"""What would break a line or a terminal."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def one_line(name: str) -> str:
    """A class name for pictures and tables: in one line, and cut where it is very long."""
    line = CONTROL.sub(" ", name).strip()
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def colour(label: int) -> str:
    """The colour of a class."""
    return COLOURS[label % len(COLOURS)]


def ink(background: str) -> str:
    """Black on light colours, white on dark ones (ITU-R BT.601 luma)."""
    red, green, blue = (int(background[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else "#ffffff"


@cache
def font(text: str, size: int) -> Font:
    """Letters for `text`, `size` in pixels; Pillow's own for Latin ones or where none is found."""
    if text.encode("latin-1", "ignore").decode("latin-1") != text:
        for name in FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)
