"""The command line of the example."""

import time
from pathlib import Path

import scipy.sparse.linalg
import torch
from rich.console import Console
from rich.table import Table

from examples.command_line import run_example
from examples.conjugate_gradients import Operator, conjugate_gradients
from examples.preconditioner import figures
from examples.preconditioner.factor import Factor
from examples.preconditioner.problem import assemble
from examples.threads import one_thread

DESCRIPTION = (
    "A learned preconditioner of a finite-element matrix. The conductivity of the plate is a "
    "photograph of coins from Pompeii (Brooklyn Museum, no known copyright restrictions), which "
    "scikit-image ships."
)
PICTURES = {
    "preconditioner.png": (
        "Conductivity and temperature of the plate, residuals by iteration, and the errors "
        "that are left with each preconditioner"
    ),
}
SEED = 0
CELLS, QUICK_CELLS = 160, 32
STEPS, QUICK_STEPS = 200, 60
TOLERANCE = 1e-8
MOST_ITERATIONS = 5000


def run(console: Console, output: Path, quick: bool) -> None:  # noqa: FBT001 - as the command has it
    """Solve with the assembled diagonal, then with learned factors of two patterns."""
    problem = assemble(QUICK_CELLS if quick else CELLS)
    pattern, entries = problem.operator()
    console.print(f"{len(problem.right):,} unknowns, {pattern.nnz:,} entries", highlight=False)
    exact = torch.from_numpy(
        scipy.sparse.linalg.spsolve(problem.matrix.tocsc(), problem.right.squeeze(1).numpy())
    )
    generator = torch.Generator().manual_seed(SEED)
    methods: dict[str, tuple[Operator, int, float]] = {
        "diagonal (assembled)": (torch.clone, len(exact), 0.0)
    }
    for power, name in ((1, "learned, pattern of A"), (2, "learned, pattern of A²")):
        factor = Factor(problem, power)
        start = time.perf_counter()
        losses = factor.learn(problem, QUICK_STEPS if quick else STEPS, generator)
        learning = time.perf_counter() - start
        console.print(f"{name}: loss {losses[0]:.4f} → {losses[-1]:.4f}", highlight=False)
        methods[name] = (factor.precondition, factor.pattern.nnz, learning)

    temperature = problem.picture(exact)
    # Early, where the errors still can be seen.
    fixed = problem.cells // 2
    table = Table(
        "preconditioner", "entries", "learning", "iterations", "solving", f"error after {fixed}"
    )
    outcomes = {}
    for name, (precondition, number, learning) in methods.items():
        start = time.perf_counter()
        _, shares = conjugate_gradients(
            lambda x: pattern.mm(entries, x),
            problem.right,
            precondition,
            tolerance=TOLERANCE,
            most_iterations=MOST_ITERATIONS,
        )
        solving = time.perf_counter() - start
        early, _ = conjugate_gradients(
            lambda x: pattern.mm(entries, x),
            problem.right,
            precondition,
            tolerance=0,
            most_iterations=fixed,
        )
        error = problem.picture(early.squeeze(1) - exact)
        outcomes[name] = error, shares
        table.add_row(
            name,
            f"{number:,}",
            f"{learning:.1f} s",
            str(len(shares)),
            f"{solving:.2f} s",
            f"{abs(error).max() / temperature.max():.1%}",
        )
    console.print(table)
    path = output / "preconditioner.png"
    figures.save_convergence(path, problem.conductivity, temperature, outcomes, fixed)
    console.print(f"saved {path}", highlight=False)
    before, *after = (len(shares) for _, shares in outcomes.values())
    if min(after) >= before:
        message = "learned factors should need fewer iterations than the diagonal"
        raise SystemExit(message)


def main(arguments: list[str] | None = None) -> None:
    """Learn and compare; end with a message if learning does not help."""
    with one_thread():
        run_example("preconditioner", DESCRIPTION, run, arguments)


if __name__ == "__main__":
    main()
