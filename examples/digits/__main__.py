"""The command line of the example."""

from pathlib import Path

from rich.console import Console

from examples.command_line import run_example
from examples.digits import density, training

DESCRIPTION = (
    "Handwritten digits through sparse networks. A pattern that stays is trained, then patterns of "
    "several densities both as they are and regrown. The scans are those of the UCI repository "
    "(CC BY 4.0), which scikit-learn ships."
)
PICTURES = {
    "digits_densities.png": (
        "Accuracy against the share of weights that exist, of fixed and regrown patterns, and "
        "how many weights look at each pixel of a digit"
    ),
    "digits_loss.png": "Loss and accuracy on held-out digits, by epoch",
    "digits_patterns.png": "The three weight matrices: a pixel is coloured where a weight exists",
}
QUICK_EPOCHS = 10


def run(console: Console, output: Path, quick: bool) -> None:  # noqa: FBT001 - as the command has it
    """Train one network at length, then many."""
    training.run(console, output, QUICK_EPOCHS if quick else training.EPOCHS)
    density.run(console, output, quick=quick)


def main(arguments: list[str] | None = None) -> None:
    """Train; end with a message if something does not work as it should."""
    run_example("digits", DESCRIPTION, run, arguments)


if __name__ == "__main__":
    main()
