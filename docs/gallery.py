"""Runs of the examples: the pages show their pictures, what they print, and how long they took.

The tests of the examples keep their quick runs here, so that the site needs none of its own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import spgrad
from benchmarks.operator.machine import processor

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PAGES = ROOT / "docs" / "examples"
# Of the environment of a run.
SETTINGS = {"COLUMNS": "96", "TERM": "dumb", "OMP_WAIT_POLICY": "passive"}


@dataclass(frozen=True)
class Run:
    """What a run of an example left, beside its pictures."""

    digest: str
    quick: bool
    seconds: float
    output: str


def _sources(name: str) -> list[Path]:
    """List what uses spgrad first, and pictures and the command line last."""
    paths = [path for path in (EXAMPLES / name).glob("*.py") if path.name != "__init__.py"]

    def place(path: Path) -> tuple[bool, bool, bool, str]:
        uses_spgrad = "spgrad" in path.read_text(encoding="utf-8")
        return path.stem == "__main__", path.stem == "figures", not uses_spgrad, path.name

    return sorted(paths, key=place)


def _digest(name: str) -> str:
    """Hash what the run depends on: the example, what examples share, spgrad, and all packages."""
    found = hashlib.sha256()
    package = Path(spgrad.__file__).parent
    installed = [*package.rglob("*.py"), *package.glob("*.*/lib/*.so")]
    for path in [*_sources(name), *sorted(EXAMPLES.glob("*.py")), *sorted(installed)]:
        found.update(path.read_bytes())
    packages = sorted(
        {f"{each.name} {each.version}" for each in importlib.metadata.distributions()}
    )
    found.update("\n".join([sys.version, *packages]).encode())
    return found.hexdigest()


def kept(name: str) -> Run | None:
    """Give the run that was kept of an example, if nothing that it depends on has changed."""
    record = PAGES / name / "run.json"
    if not record.exists():
        return None
    known = Run(**json.loads(record.read_text(encoding="utf-8")))
    return known if known.digest == _digest(name) else None


def clear(name: str) -> Path:
    """Make the folder of an example's run anew."""
    folder = PAGES / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def keep(name: str, printed: str, seconds: float, *, quick: bool) -> Run:
    """Keep what a run printed, beside the pictures that it left in its folder."""
    lines = [line.rstrip() for line in printed.splitlines()]
    # Neither the title, nor bars of progress, nor where the pictures are.
    others = ("── ", "━ 100%", str(PAGES / name))
    output = "\n".join(line for line in lines if not any(other in line for other in others))
    run = Run(_digest(name), quick, seconds, output)
    (PAGES / name / "run.json").write_text(json.dumps(asdict(run)), encoding="utf-8")
    return run


def _run(name: str, *, quick: bool) -> Run:
    """Run an example, unless there is such a run; a full run serves for a quick one."""
    known = kept(name)
    if known and (quick or not known.quick):
        return known
    folder = clear(name)
    command = [sys.executable, "-W", "ignore", "-m", f"examples.{name}", "--output", str(folder)]
    start = time.perf_counter()
    finished = subprocess.run(  # noqa: S603
        [*command, *(["--quick"] if quick else [])],
        cwd=ROOT,
        env=os.environ | SETTINGS,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.perf_counter() - start
    if finished.returncode:
        message = f"examples.{name} failed:\n{finished.stdout}"
        raise SystemExit(message)
    return keep(name, finished.stdout, seconds, quick=quick)


def _page(name: str, run: Run) -> str:
    program = importlib.import_module(f"examples.{name}.__main__")
    command = f"python -m examples.{name}" + (" --quick" if run.quick else "")
    # Each leads to itself in full size, where Sphinx puts it.
    images = (
        f"```{{image}} {name}/{file}\n:alt: {text}\n:target: ../_images/{file}\n```\n"
        for file, text in program.PICTURES.items()
    )
    parts = [f"# {_title(name)}\n", program.DESCRIPTION + "\n", *images]
    machine = f"{run.seconds:.0f} s on {processor()}"
    parts.append(f"The pictures are those of this run, of {machine}:\n")
    parts.append(f"```shell\n{command}\n```\n")
    parts.append(f"```text\n{run.output}\n```\n")
    if more := _docstring(name).partition("\n\n")[2]:
        parts += ["```{eval-rst}", more, "```\n"]
    parts.append(f"The files of `examples/{name}`:\n")
    for path in _sources(name):
        place = os.path.relpath(path, PAGES)
        parts += [f"## `{path.name}`\n", f"```{{literalinclude}} {place}\n```\n"]
    return "\n".join(parts)


def _docstring(name: str) -> str:
    return inspect.getdoc(importlib.import_module(f"examples.{name}")) or ""


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _index(names: list[str]) -> str:
    how = (
        "Programs that run from a clone, each in a folder of its own, by `python -m "
        "examples.NAME`. Each has `--quick`, for a run of some seconds, and says what data it uses "
        "and under which licence.\n"
    )
    parts = ["# Examples\n", how, "::::{grid} 1 1 2 2\n:gutter: 3\n"]
    for name in names:
        pictures = importlib.import_module(f"examples.{name}.__main__").PICTURES
        file, text = next(iter(pictures.items()))
        parts.append(f":::{{grid-item-card}} {_title(name)}")
        parts += [f":link: {name}", ":link-type: doc"]
        parts += [f":img-bottom: {name}/{file}", f":img-alt: {text}"]
        parts += ["", _docstring(name).partition(":")[0].partition("``")[0] + ".", ":::\n"]
    parts += ["::::\n", "```{toctree}\n:hidden:\n", *names, "```\n"]
    return "\n".join(parts)


def pages(*, quick: bool) -> dict[Path, str]:
    """Run the examples, and make a page of each, and one that lists them."""
    names = sorted(path.parent.name for path in EXAMPLES.glob("*/__main__.py"))
    with ThreadPoolExecutor(2 if quick else 1) as pool:  # they have one thread each
        runs = list(pool.map(lambda name: _run(name, quick=quick), names))
    made = {PAGES / f"{name}.md": _page(name, run) for name, run in zip(names, runs, strict=True)}
    made[PAGES / "index.md"] = _index(names)
    return made
