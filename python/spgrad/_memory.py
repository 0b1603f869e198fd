"""The memory that is kept between products."""

import torch

from spgrad import _library  # noqa: F401 - registers the operators


def empty_cache() -> None:
    """Give the memory of freed results back to the system.

    On CPU, spgrad keeps large freed buffers, of 4 MB and more, for reuse: new memory costs page
    faults. It keeps at most an eighth of the memory that the process may have (of the machine, of
    its control group, of what limits of the address space leave), and nothing for long without use.
    The system takes it back by itself when it is short of memory, so nobody has to call this
    function to make room for something else; until then it counts as resident memory of the
    process. ``SPGRAD_KEEP_MEMORY=0`` in the environment keeps nothing. Results that are in use are
    left alone.

    >>> import spgrad
    >>> spgrad.empty_cache()

    """
    torch.ops.spgrad.empty_cache()
