"""Choice of the instruction set that the CPU kernels use."""

import torch

from spgrad import _library  # noqa: F401 - registers the operators


def instruction_sets() -> list[str]:
    """List the instruction sets that this build has and this CPU supports, best first.

    >>> import spgrad
    >>> spgrad.instruction_sets()[-1]
    'baseline'

    Returns:
        Names out of ``"avx512"``, ``"avx2"`` and ``"baseline"``; the last is always there.

    """
    names: list[str] = torch.ops.spgrad.instruction_sets()
    return names


def instruction_set() -> str:
    """Name the instruction set in use: the best one unless another was chosen.

    >>> import spgrad
    >>> spgrad.instruction_set() in spgrad.instruction_sets()
    True

    Returns:
        One of the names that :func:`instruction_sets` lists.

    Raises:
        ValueError: The environment variable ``SPGRAD_INSTRUCTION_SET`` has another name.

    """
    name: str = torch.ops.spgrad.instruction_set()
    return name


def use_instruction_set(name: str) -> None:
    """Make all kernels in this process use the instruction set ``name`` from now on.

    The environment variable ``SPGRAD_INSTRUCTION_SET`` does the same from the start. Results may
    differ in the last bits between instruction sets.

    >>> import spgrad
    >>> spgrad.use_instruction_set("baseline")
    >>> spgrad.use_instruction_set(spgrad.instruction_sets()[0])

    Args:
        name: One of the names that :func:`instruction_sets` lists.

    Raises:
        ValueError: Another name; the message lists the choices.

    """
    torch.ops.spgrad.use_instruction_set(name)
