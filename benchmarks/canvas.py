"""What the charts of the documents are drawn on."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

# The colours of report.html on paper.
PAPER, INK, MUTED, RULE = "#fbfaf7", "#23201c", "#766f66", "#e5e0d8"
# A unit is SAVED pixels of the file; it is drawn larger and scaled down, which smooths lines.
WIDTH, HEIGHT, DRAWN, SAVED = 830, 424, 4, 2


class Canvas:
    """Pillow's drawing in our units, with text placed by its anchor."""

    def __init__(self, width: int, height: int):
        self.image = Image.new("RGB", (width * DRAWN, height * DRAWN), PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def line(self, points, colour: str, width: float = 1) -> None:
        scaled = [(x * DRAWN, y * DRAWN) for x, y in points]
        self._draw.line(scaled, fill=colour, width=round(width * DRAWN), joint="curve")

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        for r, fill in ((radius + 1.2, PAPER), (radius, colour)):
            self._draw.ellipse([(v + s * r) * DRAWN for s in (-1, 1) for v in (x, y)], fill=fill)

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        self._draw.rounded_rectangle([v * DRAWN for v in (left, top, right, bottom)], 2 * DRAWN, fill=colour)

    def text(self, x: float, y: float, text: str, *, size: float = 11.5, colour: str = MUTED, anchor="ls") -> float:
        """Writes a line and returns its width."""
        font = ImageFont.load_default(size * DRAWN)
        self._draw.text((x * DRAWN, y * DRAWN), text, fill=colour, font=font, anchor=anchor)
        return font.getlength(text) / DRAWN

    def whisker(self, x: float, low: float, high: float, colour: str) -> None:
        self.line([(x, low), (x, high)], colour, 1)

    def paste(self, picture: Image.Image, x: float, y: float, side: float) -> None:
        """A picture, `side` units wide and high, without smoothing."""
        size = round(side * DRAWN)
        self.image.paste(picture.resize((size, size), Image.Resampling.NEAREST), (round(x * DRAWN), round(y * DRAWN)))

    def save(self, path: Path) -> None:
        width, height = self.image.size
        size = (width // DRAWN * SAVED, height // DRAWN * SAVED)
        self.image.resize(size, Image.Resampling.LANCZOS).save(path, optimize=True)
