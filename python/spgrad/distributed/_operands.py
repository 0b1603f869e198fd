"""What dense operands must be: what is wrong with one is an error that a rank tells the others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from spgrad.distributed._agreement import DTYPES

NAMES_OF_DTYPES = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)


def wrong_with(
    operand: object, name: str, shape: tuple[int] | tuple[int, str], device: torch.device | None
) -> Exception | None:
    """Tell what is wrong with an operand of a rank.

    Args:
        operand: What the user gave.
        name: What it is called.
        shape: What it must have; a second size is any.
        device: Where it must be; None: anywhere that has numbers.

    """
    if not isinstance(operand, Tensor) or isinstance(operand, DTensor):
        accepted = "a plain tensor" if isinstance(operand, DTensor) else "a torch.Tensor"
        return ValueError(f"{name} must be {accepted}, but received {type(operand).__name__}")
    # A nested tensor may have no shape.
    fits = not operand.is_nested and operand.dim() == len(shape) and operand.shape[0] == shape[0]
    if not fits or operand.layout != torch.strided:
        wanted = str(shape).replace("'", "")
        received = "a nested one"
        if not operand.is_nested:
            received = f"{operand.layout} of shape {tuple(operand.shape)}"
        return ValueError(f"{name} must be dense and have shape {wanted}, but received {received}")
    is_there = not operand.is_meta if device is None else operand.device == device
    if operand.dtype not in DTYPES or not is_there:
        where = "a device with memory" if device is None else str(device)
        return RuntimeError(
            f"{name} must be {NAMES_OF_DTYPES}, on {where}, "
            f"but received {operand.dtype} on {operand.device}"
        )
    return None


def wrong_pair(first: Tensor, first_name: str, second: Tensor, name: str) -> Exception | None:
    """Tell whether two operands have different dtypes."""
    if first.dtype == second.dtype:
        return None
    return RuntimeError(
        f"{first_name} and {name} must have the same dtype, "
        f"but received {first.dtype} and {second.dtype}"
    )
