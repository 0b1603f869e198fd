"""What torch.distributed.checkpoint is told of a tensor that is a part of one of all ranks.

Its protocol ``CheckpointableTensor``: attributes of a plain tensor. A DTensor would not do, since
it knows no other parts than those of ``torch.chunk``, and ranks have any numbers of entries.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


_HAS_PROTOCOL = importlib.util.find_spec("torch.distributed.checkpoint.protocol") is not None


def need_checkpoints(*_: object) -> None:
    """Refuse a PyTorch that would take parts for copies of each other.

    Raises:
        RuntimeError: It is older than the protocol.

    """
    if not _HAS_PROTOCOL:
        message = "checkpoints of sharded matrices need PyTorch 2.15 or later"
        raise RuntimeError(message)


def mark(part: Tensor, starts: Sequence[int], rank: int) -> Tensor:
    """Tell where in the tensor of all ranks a part lies.

    Args:
        part: The part of this rank, of any shape.
        starts: Where the first dimension of each rank's part begins, and the end of the last.
        rank: This rank.

    Returns:
        The same tensor.

    """
    total, others = starts[-1], tuple(part.shape[1:])
    begins = (0,) * len(others)
    # An empty part is none: its place is that of the next one, which would be left out for it.
    parts = 1 if len(part) > 0 or (total == 0 and rank == 0) else 0
    place = {
        "global_shape": (total, *others),
        "global_offsets": ((starts[rank], *begins),) * parts,
        "local_offsets": ((0, *begins),) * parts,
        "local_sizes": (tuple(part.shape),) * parts,
    }
    for name, value in place.items():
        setattr(part, name, value)
    if not _HAS_PROTOCOL:  # what it calls of a tensor that has it, before it saves a wrong thing
        setattr(part, "__create_write_items__", need_checkpoints)  # noqa: B010 - for mypy
    return part


def mark_alike(part: Tensor, like: Tensor) -> Tensor:
    """Tell that a part lies where another one of the same shape does, if that is a part at all."""
    for name in ("global_shape", "global_offsets", "local_offsets", "local_sizes"):
        setattr(part, name, getattr(like, name))
    return part


def is_part(tensor: Tensor) -> bool:
    """Tell whether a tensor was marked."""
    return hasattr(tensor, "global_offsets")
