"""A bar chart as SVG: plain text, readable on light and dark pages."""

from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 820
LABELS = 290  # room for the names, on the left
NUMBERS = 60  # and for the figures, on the right
ROW = 28
TOP = 48

STYLE = """
  text { font: 14px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
  .title { font-weight: 600; font-size: 16px; }
  .ours { font-weight: 600; }
  .peer-bar { fill: #8c959f; }
  .ours-bar { fill: #0969da; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .peer-bar { fill: #6e7681; }
    .ours-bar { fill: #58a6ff; }
  }
"""


@dataclass(frozen=True)
class Bar:
    name: str
    value: float
    ours: bool


def svg(bars: list[Bar], title: str) -> str:
    """Bars from top to bottom in the order given."""
    height = TOP + ROW * len(bars) + 8
    longest = max(bar.value for bar in bars)
    scale = (WIDTH - LABELS - NUMBERS) / longest
    rows = "\n".join(_row(bar, TOP + ROW * index, bar.value * scale) for index, bar in enumerate(bars))
    told = "; ".join(f"{bar.name} {bar.value:.1f}" for bar in bars)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<desc>{escape(told)}</desc>\n<style>{STYLE}</style>\n"
        f'<text class="title" x="8" y="26">{escape(title)}</text>\n{rows}\n</svg>\n'
    )


def _row(bar: Bar, top: int, length: float) -> str:
    kind = "ours" if bar.ours else "peer"
    middle = top + ROW / 2 + 5
    return (
        f'<text class="{kind}" x="{LABELS - 10}" y="{middle:g}" text-anchor="end">{escape(bar.name)}</text>\n'
        f'<rect class="{kind}-bar" x="{LABELS}" y="{top + 4}" '
        f'width="{max(length, 1):.1f}" height="{ROW - 8}" rx="2"/>\n'
        f'<text class="{kind}" x="{LABELS + length + 8:.1f}" y="{middle:g}">{bar.value:.1f}×</text>'
    )
