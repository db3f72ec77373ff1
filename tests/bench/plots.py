"""The plots of a run as SVG: ratios against their aims, and how latencies are distributed."""

import math

from rows import ROWS

_WIDTH = 760
_LEFT = 150
_LINE = 26
_COLOURS = ("#1f6fb2", "#d9822b", "#3d8b57", "#a23b72", "#6b6b6b", "#b3a125", "#3aa6a6", "#84563c")


def _svg(height, parts):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'font-family="sans-serif" font-size="13">'
            f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n')


def _text(x, y, text, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def ratios(results):
    """A bar for each row: how much of its aim it uses up. A bar beyond the line misses it."""
    bars = []
    for entry in results:
        row = ROWS[entry["name"]]
        measured = entry["median"] if row.of == "median" else entry["ratio"]
        if row.aim == 0:  # nothing at all is asked for
            part = 0.0 if measured == 0 else 3.0
        elif row.higher_is_better:
            part = row.aim / measured
        else:
            part = measured / row.aim
        bars.append((row.name, min(part, 3.0), measured, row.aim))
    scale = (_WIDTH - _LEFT - 150) / 3
    parts = [_text(_LEFT, 20, "part of the aim used up; the line is the aim")]
    for i, (name, part, measured, aim) in enumerate(bars):
        y = 34 + i * _LINE
        colour = "#3d8b57" if part <= 1 else "#b23a3a"
        parts += [_text(_LEFT - 8, y + 14, name, "end"),
                  f'<rect x="{_LEFT}" y="{y}" width="{max(part * scale, 1):.1f}" '
                  f'height="{_LINE - 8}" fill="{colour}"/>',
                  _text(_LEFT + part * scale + 6, y + 14, f"{measured:.3g} of {aim:g}")]
    bottom = 34 + len(bars) * _LINE
    parts.append(f'<line x1="{_LEFT + scale:.1f}" y1="28" x2="{_LEFT + scale:.1f}" y2="{bottom}" '
                 f'stroke="black" stroke-dasharray="4 3"/>')
    return _svg(bottom + 12, parts)


def latencies(samples):
    """For each row in microseconds and its limit: latency, logarithmic, up to each share."""
    series = []
    for name in samples.rows():
        if ROWS[name].unit == "us":
            for side in ("value", "limit"):
                values = sorted(samples.all(name, side))
                if values:
                    series.append((f"{name} {side}", values))
    if not series:
        return _svg(40, [_text(20, 20, "no latencies in this run")])
    low = math.floor(math.log10(max(min(values[0] for _, values in series), 0.01)))
    high = max(math.ceil(math.log10(max(values[-1] for _, values in series))), low + 1)
    top, height = 20, 320
    width = _WIDTH - 60 - 230

    def point(share, value):
        y = top + height * (1 - (math.log10(max(value, 0.01)) - low) / (high - low))
        return f"{60 + width * share:.1f},{y:.1f}"

    parts = []
    for power in range(low, high + 1):
        y = top + height * (1 - (power - low) / (high - low))
        parts += [f'<line x1="60" y1="{y:.1f}" x2="{60 + width}" y2="{y:.1f}" stroke="#dddddd"/>',
                  _text(54, y + 4, f"{10.0 ** power:g} us", "end")]
    for share in (0, 0.25, 0.5, 0.75, 0.99):
        parts.append(_text(60 + width * share, top + height + 18, f"{share * 100:g} %", "middle"))
    for i, (name, values) in enumerate(series):
        points = " ".join(point(k / 100, values[min(len(values) - 1, len(values) * k // 100)])
                          for k in range(101))
        dash = ' stroke-dasharray="5 3"' if name.endswith("limit") else ""
        colour = _COLOURS[i // 2 % len(_COLOURS)]
        parts += [f'<polyline points="{points}" fill="none" stroke="{colour}" '
                  f'stroke-width="1.6"{dash}/>',
                  f'<line x1="{_WIDTH - 220}" y1="{top + 10 + i * 20}" x2="{_WIDTH - 190}" '
                  f'y2="{top + 10 + i * 20}" stroke="{colour}" stroke-width="1.6"{dash}/>',
                  _text(_WIDTH - 184, top + 14 + i * 20, name)]
    return _svg(top + height + 34, parts)
