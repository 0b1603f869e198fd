"""Tests the wheel in environments that have a PyTorch each, and nothing of the project.

In each, the first example of README and a program run without a compiler, and a PyTorch that the
wheel has no library for is refused; then come tests of the products, and programs in C++. A PyTorch
is several GB to download.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("program.py")
TESTS = ("product", "gradients", "layouts_and_strides", "errors", "lstsq")
UNSUPPORTED = """
import torch

torch.__version__ = "2.99.0"
try:
    import spgrad
except ImportError as error:
    assert "2.99.0" in str(error), error
else:
    raise SystemExit("PyTorch 2.99.0 was not refused")
"""
# What the tests import, and what builds programs in C++.
TOOLS = ("pytest", "hypothesis", "numpy", "scipy", "cmake", "ninja")


def run(*command: str | Path, cwd: str | Path, **settings: str) -> None:
    """Run a command with these settings in place of the whole environment."""
    print("$", *command, flush=True)
    subprocess.run([str(each) for each in command], check=True, cwd=cwd, env=settings)


def first_example() -> str:
    """Give the first Python of README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example = text.partition("```python\n")[2].partition("```")[0]
    if "spgrad" not in example:
        message = "README has no example of Python"
        raise SystemExit(message)
    return example


def test(series: str, base: str, wheel: Path, folder: Path) -> None:
    """Install a PyTorch and the wheel into an environment of their own, and test them."""
    run(base, "-m", "venv", folder, cwd=ROOT, **os.environ)
    python = folder / "bin" / "python"
    install = (python, "-m", "pip", "install", "--quiet", "--no-cache-dir")
    run(*install, wheel, f"torch=={series}.*", cwd=folder, **os.environ)

    # No compiler is found.
    bare = {"PATH": str(folder / "bin"), "HOME": str(folder)}
    run(python, "-c", first_example(), cwd=folder, **bare)
    run(python, PROGRAM, cwd=folder, **bare)
    run(python, "-m", "spgrad.info", cwd=folder, **bare)
    run(python, "-c", UNSUPPORTED, cwd=folder, **bare)

    run(*install, *TOOLS, cwd=folder, **os.environ)
    files = [ROOT / "tests" / "python" / f"test_{name}.py" for name in TESTS]
    pytest = (python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default")
    run(*pytest, *files, cwd=folder, **bare)

    full = bare | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    build = folder / "build"
    (package,) = folder.glob("lib/python*/site-packages/spgrad")
    options = ("-G", "Ninja", f"-Dspgrad_ROOT={package}", f"-DPython_EXECUTABLE={python}")
    run("cmake", "-S", ROOT / "tests" / "package", "-B", build, *options, cwd=folder, **full)
    run("cmake", "--build", build, "--target", "train", "multiply", cwd=folder, **full)
    run(build / "train", cwd=folder, **bare)
    run(build / "multiply", cwd=folder, **bare)


def main() -> None:
    """Test the wheel in dist/ with each PyTorch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("series", nargs="+", help="minor versions of PyTorch, such as 2.11")
    parser.add_argument("--python", default=sys.executable, help="of the environments, if not this")
    options = parser.parse_args()
    wheels = list((ROOT / "dist").glob("spgrad-*.whl"))
    if len(wheels) != 1:
        message = f"dist/ must have one wheel, as make wheel leaves it, but has {len(wheels)}"
        raise SystemExit(message)
    for series in options.series:
        folder = Path(tempfile.mkdtemp(prefix=f"spgrad-{series}-"))
        try:
            test(series, options.python, wheels[0], folder)
        finally:
            shutil.rmtree(folder)
        print(f"PyTorch {series}: passed", flush=True)


if __name__ == "__main__":
    main()
