"""Plots as files."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure


def save_svg(figure: Figure, file: Path) -> None:
    """Write an SVG that is the same whenever the figure is."""
    with matplotlib.rc_context({"svg.hashsalt": "redraft"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
