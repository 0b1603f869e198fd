"""The command line of the example."""

import argparse
from pathlib import Path

from rich.console import Console

from examples.digits import training

QUICK_EPOCHS = 10


def main(arguments: list[str] | None = None) -> None:
    """Train; end with a message if something does not work as it should."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.digits",
        description="Train a network with sparse weights on handwritten digits.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("demo-output"),
        help="folder for the figures (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="train for fewer epochs")
    options = parser.parse_args(arguments)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make the folder {options.output}: {error.strerror}"
        raise SystemExit(message) from error
    # Names of folders are printed, and may look like markup.
    console = Console(markup=False)
    console.rule("Handwritten digits through a sparse network")
    training.run(console, options.output, QUICK_EPOCHS if options.quick else training.EPOCHS)


if __name__ == "__main__":
    main()
