"""The memory that is kept between products."""

import torch

from spgrad import _library  # noqa: F401 - registers the operators


def empty_cache() -> None:
    """Give the memory of freed results back to the system.

    Results of 4 MB and more on CPU leave their memory to later ones, which spares those the page
    faults of new memory. At most an eighth of the memory that the process may have is kept (of the
    machine, of its control group, of what limits of the address space leave), none for long
    without use, and the system takes it by itself when it is short of memory; nobody has to call
    this function to make room for something else. Until then it counts as resident memory of the
    process. ``SPGRAD_KEEP_MEMORY=0`` in the environment keeps nothing. Results that are in use are
    left alone.

    >>> import spgrad
    >>> spgrad.empty_cache()

    """
    torch.ops.spgrad.empty_cache()
