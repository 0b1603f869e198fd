"""The command line that all examples share."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console


def run_example(
    name: str,
    description: str,
    run: Callable[[Console, Path, bool], None],
    arguments: list[str] | None = None,
) -> None:
    """Read the options, make the folder for the figures, and run an example.

    Args:
        name: Name of the package in ``examples``.
        description: What it does, with which data and under which licence.
        run: Takes a console, the folder, and whether to be quick.
        arguments: Those of the command line if None.

    Raises:
        SystemExit: The options are wrong, the folder cannot be made, or the example says that
            something does not work as it should.

    """
    parser = argparse.ArgumentParser(prog=f"python -m examples.{name}", description=description)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("demo-output"),
        help="folder for the figures (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="a smaller run, of some seconds")
    options = parser.parse_args(arguments)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make the folder {options.output}: {error.strerror}"
        raise SystemExit(message) from error
    # Names of folders are printed, and may look like markup.
    console = Console(markup=False)
    console.rule(description.partition(".")[0])
    run(console, options.output, options.quick)
