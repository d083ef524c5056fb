"""What the pages of report.py are made of: pictures of matplotlib, lines of a table's height, tables."""

import html
import io

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402


def smooth(values, width):
    """Mean over a centred window that shrinks at the ends."""
    total = np.cumsum(np.insert(values.astype(float), 0, 0))
    low = np.maximum(np.arange(len(values)) - width, 0)
    high = np.minimum(np.arange(len(values)) + width + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def svg(draw, wide=False):
    figure, axes = plt.subplots(figsize=(11, 4.2) if wide else (5.6, 3.4), layout="constrained")
    draw(axes)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg"):]


def draw_curve(axes, step, values, label, units, color, noisy=True):
    """Noisy measurements become points with their running mean; a schedule is drawn as it is."""
    if noisy and len(step) > 80:
        axes.plot(step, values, ".", color=color, alpha=0.18, markersize=2, rasterized=True)
        axes.plot(step, smooth(values, max(2, len(step) // 60)), color=color, linewidth=1.8)
    else:
        axes.plot(step, values, color=color, linewidth=1.5)
    axes.set_xlabel("updates")
    axes.set_ylabel(f"{label} [{units}]" if units != "1" else label)


def spark(x, y, last_x, low=None, high=None):
    """A curve of a line's height with a point at its end; x runs from 0 to last_x. Without limits, from its least value to its greatest."""
    there = np.isfinite(y)
    x, y = x[there], y[there]
    if not len(y):
        return ""
    low, high = y.min() if low is None else low, y.max() if high is None else high
    across = 2 + 116 * x / max(last_x, 1)
    down = 22 - 20 * (np.clip(y, low, high) - low) / (high - low) if high > low else np.full(len(y), 12.0)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down))
    return (f'<svg class=spark viewBox="0 0 120 24"><polyline points="{points}" fill="none" stroke="#1f77b4" stroke-width="1.3"/>'
            f'<circle cx="{across[-1]:.1f}" cy="{down[-1]:.1f}" r="2" fill="#d62728"/></svg>')


def figure(value):
    """Four digits of a number that is not whole."""
    if not np.isfinite(value):
        return "–"
    return str(value) if isinstance(value, (int, np.integer)) else f"{value:.4g}" if abs(value) >= 1 else f"{value:.4f}"


def table(header, rows):
    """Cells are text; a number stands to the right, and what begins with < is HTML."""
    def cell(value):
        if isinstance(value, str):
            return f"<td>{value if value.startswith('<') else html.escape(value)}</td>"
        return f"<td class=n>{figure(value)}</td>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    return f"<table><tr>{head}</tr>" + "".join("<tr>" + "".join(map(cell, row)) + "</tr>" for row in rows) + "</table>"
