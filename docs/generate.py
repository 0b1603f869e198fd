"""The pages of the site that are made of something else: docstrings, headers, examples, records."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gallery
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import spgrad
from benchmarks.operator import pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DOXYGEN = ROOT / "build" / "docs" / "doxygen"
# What comes first in a header is of the file; arguments, each in a line of its own, become a list.
DOXYGEN_FILTER = r"1s,^,/// @file\n,;s,^( *///) (`[A-Za-z_]+`: ),\1 - \2,"
# With the headers whose descriptions come first.
NAMESPACES = {
    "spgrad": ("sparse_mm.h", "lstsq.h"),
    "spgrad::kernels": ("products.h", "kernels.h", "extremum.h", "lsmr.h", "cholesky.h"),
}


def _write(path: Path, text: str) -> None:
    """Write a text, unless it is there already: Sphinx reads again what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


# What comes first among the files of a module.
FIRST = ("spgrad._products", "spgrad._pattern", "spgrad._lstsq", "spgrad.distributed._row_sharded")


def _first_sentence(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ")


def public_modules() -> Iterator[ModuleType]:
    """Find the modules that users import."""
    yield spgrad
    for found in pkgutil.walk_packages(spgrad.__path__, "spgrad."):
        if "._" not in found.name:
            yield importlib.import_module(found.name)


def python_api() -> str:
    """List all that is public by module and, within a module, by the file that it comes from."""
    parts = ["# Python\n", "Shapes, dtypes, results and errors of all that `spgrad` has.\n"]
    for module in public_modules():
        parts += [f"## {module.__name__}\n", _first_sentence(module) + "\n"]
        files: dict[str, list[str]] = {}
        for name in module.__all__:
            origin = getattr(getattr(module, name), "__module__", None)  # modules have none
            if origin:
                files.setdefault(origin, []).append(f"   {module.__name__}.{name}")
        # Functions, then classes.
        ordered = sorted(files, key=lambda origin: (*(origin != first for first in FIRST),))
        for origin in ordered:
            names = sorted(files[origin], key=lambda name: name.rpartition(".")[2][0].isupper())
            if origin != module.__name__:
                parts.append(_first_sentence(importlib.import_module(origin)) + "\n")
            table = [
                "```{eval-rst}",
                ".. autosummary::",
                "   :toctree: python",
                "   :nosignatures:",
                "",
                *names,
                "```\n",
            ]
            parts.append("\n".join(table))
    return "\n".join(parts)


def cpp_api() -> str:
    """List what the headers have, as Doxygen reads it; without Doxygen, where to read it."""
    parts = ["# C++\n", "[The guide](../guide/cpp.md) shows how to find and link the library.\n"]
    parts.append("```{highlight} cpp\n:force:\n```\n")
    if shutil.which("doxygen"):
        _run_doxygen()
        for namespace, headers in NAMESPACES.items():
            parts.append(f"## Namespace {namespace}\n")
            for header in headers:
                parts += [f"### {header}\n", f"```{{doxygenfile}} {header}"]
                parts.append(":sections: briefdescription detaileddescription\n```\n")
            parts.append(f"### All of {namespace}\n")
            parts.append(f"```{{doxygennamespace}} {namespace}\n:content-only:\n:members:\n```\n")
    elif os.environ.get("CI") == "true":
        message = "The C++ pages need Doxygen (on Debian: doxygen)"
        raise SystemExit(message)
    else:
        parts.append("This site was built without Doxygen: read the headers in `include/spgrad`.\n")
    return "\n".join(parts)


def _run_doxygen() -> None:
    DOXYGEN.mkdir(parents=True, exist_ok=True)
    settings = {
        "INPUT": ROOT / "include" / "spgrad",
        "EXCLUDE_PATTERNS": "export.h",
        "OUTPUT_DIRECTORY": DOXYGEN,
        "GENERATE_XML": "YES",
        "GENERATE_HTML": "NO",
        "GENERATE_LATEX": "NO",
        "EXTRACT_ALL": "YES",
        "JAVADOC_AUTOBRIEF": "YES",
        "MACRO_EXPANSION": "YES",
        "EXPAND_ONLY_PREDEF": "YES",
        "PREDEFINED": "SPGRAD_EXPORT=",
        "WARN_AS_ERROR": "FAIL_ON_WARNINGS",
        "QUIET": "YES",
        "FILTER_PATTERNS": f"\"*.h=sed -E '{DOXYGEN_FILTER}'\"",
    }
    text = "\n".join(f"{name} = {value}" for name, value in settings.items())
    subprocess.run(["doxygen", "-"], input=text, text=True, check=True)  # noqa: S607


def all_pages(*, quick: bool) -> None:
    """Write all these pages, and remove those of what is no longer there."""
    api = python_api()
    made = {DOCS / "api" / "python.md": api, DOCS / "api" / "cpp.md": cpp_api()}
    made |= gallery.pages(quick=quick)
    # The page of each name is written by autosummary.
    stubs = {DOCS / "api" / "python" / f"{line.strip()}.rst" for line in api.splitlines()}
    for path in [*(DOCS / "api").rglob("*.*"), *(DOCS / "examples").glob("*.md")]:
        if path not in made and path not in stubs:
            path.unlink()
    made |= {ROOT / path: text for path, text in pages.of_machines(pages.machines(ROOT)).items()}
    for path, text in made.items():
        _write(path, text)


def add_formulas(app: Any) -> None:
    """Write formulas as MathML, which browsers draw without a script from elsewhere."""

    def inline(self: Any, node: nodes.math) -> None:
        self.body.append(tex2mathml(node.astext()))
        raise nodes.SkipNode

    def block(self: Any, node: nodes.math_block) -> None:
        self.body.append(f"<div>{tex2mathml(node.astext(), as_block=True)}</div>\n")
        raise nodes.SkipNode

    app.add_html_math_renderer("mathml", (inline, None), (block, None))
