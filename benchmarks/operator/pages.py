"""Makes the pages and pictures of the reference machines: ``python -m benchmarks.operator.pages``.

Each folder of docs/performance is a machine with the records of one run. Of these are made the page
and the picture beside them, the table of the machine in docs/performance.md, and of the newest run
the table of speed in README.md, and the figures there and in docs/index.md. What is in a document
stands between two lines, ``<!-- generated: NAME -->`` and ``<!-- end -->``; the name is that of
the folder, readme, or figures. The pages are not kept: the site makes them, too.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.operator.output import PAGE, PICTURE, RECORDS
from benchmarks.operator.plots import draw_speed
from benchmarks.operator.report import (
    machine_table,
    page,
    readme_table,
    three_figures,
    three_figures_of_readme,
)
from benchmarks.operator.results import Results

ROOT = Path(__file__).resolve().parents[2]
README = Path("README.md")
INDEX = Path("docs/index.md")
PERFORMANCE = Path("docs/performance.md")
MACHINES = Path("docs/performance")


def machines(root: Path) -> dict[Path, Results]:
    """Read the records of all machines, by folder below the root."""
    records = sorted((root / MACHINES).glob(f"*/{RECORDS}"))
    return {path.parent.relative_to(root): Results.read(path) for path in records}


def filled(path: Path, text: str, name: str, content: str) -> str:
    """Give a document's text with other content in the block of that name."""
    head, start, rest = text.partition(f"<!-- generated: {name} -->\n")
    before, end, tail = rest.partition("<!-- end -->")
    if not start or not end or "<!-- generated" in before:
        message = f"{path} needs the lines <!-- generated: {name} --> and <!-- end -->"
        raise SystemExit(message)
    return f"{head}{start}\n{content}\n{end}{tail}"


def of_machines(runs: dict[Path, Results]) -> dict[Path, str]:
    """Make the pages of the machines, by path below the root."""
    return {folder / PAGE: page(results, PICTURE) for folder, results in runs.items()}


def texts(root: Path, runs: dict[Path, Results]) -> dict[Path, str]:
    """Make the texts of the documents that have tables, by path below the root."""
    performance = (root / PERFORMANCE).read_text(encoding="utf-8")
    for folder, results in runs.items():
        performance = filled(PERFORMANCE, performance, folder.name, machine_table(results))
    newest = max(runs, key=lambda folder: runs[folder].machine["date"])
    readme = (root / README).read_text(encoding="utf-8")
    readme = filled(README, readme, "figures", three_figures_of_readme(runs[newest]))
    table = readme_table(runs[newest], PERFORMANCE.as_posix())
    index = (root / INDEX).read_text(encoding="utf-8")
    return {
        PERFORMANCE: performance,
        README: filled(README, readme, "readme", table),
        INDEX: filled(INDEX, index, "figures", three_figures(runs[newest])),
    }


def main(root: Path = ROOT) -> None:
    """Write all pages, texts and pictures."""
    runs = machines(root)
    for path, text in (of_machines(runs) | texts(root, runs)).items():
        (root / path).write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    for folder, results in runs.items():
        draw_speed(results, root / folder / PICTURE)
        print(f"wrote {folder / PICTURE}")


if __name__ == "__main__":
    main()
