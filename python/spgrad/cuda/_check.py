"""When a bad index on a CUDA device becomes an error."""

import torch

from spgrad import _library  # noqa: F401 - registers the operators


def check(device: torch.device | str | int | None = None) -> None:
    """Wait for the products on a CUDA device, and raise the error of the indices that one met.

    A product does not wait for its kernels. Where they meet an index or offset that is outside,
    they leave NaN in the result, and the error is raised by the next product on the device, or
    here.

    >>> import spgrad
    >>> spgrad.cuda.check()

    Args:
        device: A CUDA device, or its number; the current one if there is none given. Without any
            CUDA device there is nothing to wait for.

    Raises:
        RuntimeError: An index or offset of an earlier product is malformed.
        ValueError: The device is no CUDA device.

    """
    if device is None:
        index = -1
    elif isinstance(device, int):
        index = device
    else:
        device = torch.device(device)
        if device.type != "cuda":
            message = f"device must be a CUDA device, but received {device}"
            raise ValueError(message)
        index = -1 if device.index is None else device.index
    torch.ops.spgrad._cuda_check(index)  # noqa: SLF001 - our own


def check_at_once(at_once: bool, /) -> bool:  # noqa: FBT001 - as torch.set_flush_denormal
    """Say whether every product on a CUDA device waits for what its kernels find wrong.

    With ``True``, a malformed index is an error of the very product that it was given to, which
    helps to find the place, and takes time. ``CUDA_LAUNCH_BLOCKING=1`` does so from the start.

    >>> import spgrad
    >>> before = spgrad.cuda.check_at_once(True)
    >>> spgrad.cuda.check_at_once(before)
    True

    Args:
        at_once: Whether products wait, from now on and in the whole process.

    Returns:
        What was set before.

    Raises:
        ValueError: The argument is no bool.

    """
    if not isinstance(at_once, bool):
        message = f"at_once must be True or False, but received {at_once!r}"
        raise ValueError(message)  # noqa: TRY004 - as the products do
    before: bool = torch.ops.spgrad._cuda_check_at_once(at_once)  # noqa: SLF001 - our own
    return before
