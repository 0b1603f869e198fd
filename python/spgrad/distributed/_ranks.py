"""The ranks that work together, and what travels between them: the only calls of collectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed
from torch import Tensor
from torch.distributed import ReduceOp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.distributed import Work
    from torch.distributed.device_mesh import DeviceMesh


class Ranks:
    """The ranks of a mesh with one dimension; without a mesh, this process alone."""

    def __init__(self, mesh: DeviceMesh | None) -> None:
        """Look up the process group of the mesh."""
        if mesh is not None and mesh.ndim != 1:
            message = f"mesh must have one dimension, but received {mesh.ndim}"
            raise ValueError(message)
        self.mesh = mesh
        self.size = 1 if mesh is None else mesh.size()
        # One rank has nobody to ask.
        self.group = None if mesh is None or self.size == 1 else mesh.get_group()
        self.rank = 0 if mesh is None else mesh.get_local_rank()
        device_type = "cpu" if mesh is None else mesh.device_type
        self.device = torch.empty(0, device=device_type).device  # with the number of the device

    def all_gather(self, row: Tensor, product: str) -> Tensor:
        """Give the rows of all ranks, on the CPU; `product` names who waits for them."""
        if self.group is None:
            return row.unsqueeze(0)
        rows = torch.empty(self.size * row.numel(), dtype=row.dtype, device=self.device)
        try:
            torch.distributed.all_gather_into_tensor(rows, row.to(self.device), group=self.group)
        except RuntimeError as error:
            raise _left_alone(product) from error
        return rows.view(self.size, row.numel()).cpu()

    def largest(self, numbers: Tensor, product: str) -> Tensor:
        """Give the largest of each number on all ranks, on the CPU."""
        if self.group is None:
            return numbers
        largest = numbers.to(self.device)
        try:
            torch.distributed.all_reduce(largest, ReduceOp.MAX, group=self.group)
        except RuntimeError as error:
            raise _left_alone(product) from error
        return largest.cpu()

    def send_rows(
        self,
        out: Tensor,
        rows: Tensor,
        received: Sequence[int],
        sent: Sequence[int],
        product: str,
    ) -> Transfer:
        """Start to send rows to each rank, and to receive into `out`, both in the order of ranks.

        Numbers travel as bytes, which every backend takes.
        """
        if self.group is None:
            out.copy_(rows)
            return Transfer(None, product)
        try:
            work = torch.distributed.all_to_all_single(
                _bytes_of(out),
                _bytes_of(rows),
                list(received),
                list(sent),
                group=self.group,
                async_op=True,
            )
        except RuntimeError as error:
            raise _left_alone(product) from error
        return Transfer(work, product)


class Transfer:
    """Rows that are under way."""

    def __init__(self, work: Work | None, product: str) -> None:
        """Remember what to wait for, and for which product."""
        self._work, self._product = work, product

    def wait(self) -> None:
        """Wait until they are there."""
        try:
            if self._work is not None:
                self._work.wait()
        except RuntimeError as error:
            raise _left_alone(self._product) from error


def _bytes_of(rows: Tensor) -> Tensor:
    return rows.reshape(len(rows), rows.shape[1:].numel()).view(torch.uint8)


def _left_alone(product: str) -> RuntimeError:
    return RuntimeError(
        f"{product} could not exchange rows with the other ranks: one of them ended, or did not "
        "call it, or its loss does not use the product"
    )
