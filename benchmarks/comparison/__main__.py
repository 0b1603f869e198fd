"""The command line of the demo."""

import argparse
from pathlib import Path

from rich.console import Console

from demo import digits, finite_elements, matrix_market

TIMING_SECONDS = 20.0
QUICK_EPOCHS = 15
QUICK_TIMING_SECONDS = 1.0


def positive_integer(text: str) -> int:
    """Parse an option that counts something."""
    number = int(text)
    if number < 1:
        message = f"{number} is not positive"
        raise argparse.ArgumentTypeError(message)
    return number


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Train a sparse network on handwritten digits, then compare the time and "
        "memory of spgrad.sparse_mm and torch.sparse.mm on a finite-element matrix.",
    )
    parser.add_argument(
        "--matrix",
        type=Path,
        metavar="PATH",
        help="only compare spgrad with PyTorch, on this Matrix Market file",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("demo-output"),
        help="folder for the figures (default: %(default)s)",
    )
    parser.add_argument(
        "--p",
        type=positive_integer,
        metavar="COLUMNS",
        default=128,
        help="columns of the dense matrix (default: %(default)s)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="train for fewer epochs and time fewer rounds"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the demo; end with a message if something does not work as it should."""
    options = parse_arguments(arguments)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make the folder {options.output}: {error.strerror}"
        raise SystemExit(message) from error
    # Names of files are printed, and may look like markup.
    console = Console(markup=False)
    timing_seconds = QUICK_TIMING_SECONDS if options.quick else TIMING_SECONDS
    if options.matrix is None:
        console.rule("Handwritten digits through a sparse network")
        digits.run(console, options.output, QUICK_EPOCHS if options.quick else digits.EPOCHS)
        console.rule("Finite elements")
        with console.status("assembling the stiffness matrix"):
            problem = finite_elements.elastic_ball()
    else:
        with console.status("reading the matrix"):
            problem = matrix_market.read(options.matrix)
    finite_elements.run(console, options.output, problem, options.p, timing_seconds)


if __name__ == "__main__":
    main()
