"""The folder that a run is written to: its records, and the page and the picture made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.operator.plots import draw_speed
from benchmarks.operator.report import page

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.operator.results import Results

RECORDS, PAGE, PICTURE = "results.tsv", "results.md", "speed.png"


def make_folder(folder: Path) -> None:
    """Make a folder, or end the program."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make the folder {folder}: {error.strerror}"
        raise SystemExit(message) from error


def write(results: Results, folder: Path) -> list[Path]:
    """Write everything, and list the files."""
    results.write(folder / RECORDS)
    (folder / PAGE).write_text(page(results, PICTURE), encoding="utf-8")
    draw_speed(results, folder / PICTURE)
    return [folder / name for name in (RECORDS, PAGE, PICTURE)]
