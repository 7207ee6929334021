"""Load, lag and replicas over one axis of time, as SVG: plain text, readable on light and dark pages."""

from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 820
LEFT, RIGHT = 64, 16
TOP, PANEL, GAP = 64, 130, 46

STYLE = """
  text { font: 13px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
  .title { font-weight: 600; font-size: 16px; }
  .head { font-weight: 600; }
  .axis { fill: #59636e; font-size: 12px; }
  .grid { stroke: #d1d9e0; stroke-width: 1; }
  .tick { stroke: #9a6700; stroke-width: 1.5; }
  path { fill: none; stroke-width: 2; stroke-linejoin: round; }
  .first { stroke: #8c959f; } text.first { fill: #59636e; stroke: none; }
  .second { stroke: #0969da; } text.second { fill: #0969da; stroke: none; }
  text.tick { fill: #9a6700; stroke: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .axis { fill: #9198a1; }
    .grid { stroke: #30363d; }
    .tick { stroke: #d29922; } text.tick { fill: #d29922; }
    .first { stroke: #9198a1; } text.first { fill: #9198a1; }
    .second { stroke: #58a6ff; } text.second { fill: #58a6ff; }
  }
"""


@dataclass(frozen=True)
class Line:
    name: str
    kind: str  # first or second: the colour
    points: list[tuple[float, float]]
    stepped: bool = False


@dataclass(frozen=True)
class Panel:
    name: str
    lines: list[Line]
    marks: tuple[str, list[float]] | None = None  # moments along the foot, with their name


def svg(title: str, told: str, panels: list[Panel], seconds: float) -> str:
    height = TOP + len(panels) * (PANEL + GAP)
    body = "\n".join(_panel(panel, TOP + number * (PANEL + GAP), seconds) for number, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<desc>{escape(told)}</desc>\n<style>{STYLE}</style>\n"
        f'<text class="title" x="8" y="26">{escape(title)}</text>\n{body}\n</svg>\n'
    )


def _panel(panel: Panel, top: float, seconds: float) -> str:
    step = _round(max(value for line in panel.lines for _, value in line.points) / 4)
    highest = step * 4
    foot = top + PANEL

    def x(at: float) -> float:
        return LEFT + at / seconds * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return foot - value / highest * PANEL

    parts = [f'<text class="head" x="8" y="{top - 12}">{escape(panel.name)}</text>']
    beside = WIDTH - RIGHT
    names = [(line.kind, line.name) for line in panel.lines] + ([("tick", panel.marks[0])] if panel.marks else [])
    for kind, name in reversed(names):
        parts.append(f'<text class="{kind}" x="{beside}" y="{top - 12}" text-anchor="end">{escape(name)}</text>')
        beside -= 8 * len(name) + 20
    for number in range(5):
        value = step * number
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        label = f"{value:,.0f}" if value == int(value) else f"{value:g}"
        parts.append(f'<text class="axis" x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{label}</text>')
    every = 60 if seconds > 240 else 15
    for at in range(0, int(seconds) + 1, every):
        label = f"{at // 60} min" if every == 60 else f"{at} s"
        parts.append(f'<text class="axis" x="{x(at):.1f}" y="{foot + 18}" text-anchor="middle">{label}</text>')
    for at in panel.marks[1] if panel.marks else []:
        parts.append(f'<line class="tick" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{foot}" y2="{foot - 12}"/>')
    for line in panel.lines:
        parts.append(f'<path class="{line.kind}" d="{_path(line, x, y)}"/>')
    return "\n".join(parts)


def _path(line: Line, x, y) -> str:
    words, last = [], None
    for at, value in line.points:
        if line.stepped and last is not None and value != last:
            words.append(f"L{x(at):.1f} {y(last):.1f}")
        if not line.stepped or value != last:
            words.append(f"{'L' if words else 'M'}{x(at):.1f} {y(value):.1f}")
        last = value
    if line.stepped:
        words.append(f"L{x(line.points[-1][0]):.1f} {y(last):.1f}")
    return " ".join(words)


def _round(step: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 1.0
    while power * 10 <= step:
        power *= 10
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step)
