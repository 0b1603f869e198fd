"""The ranks that work together, and what travels between them: the only calls of collectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed
from torch import Tensor
from torch.distributed import P2POp, ReduceOp, batch_isend_irecv, irecv, isend
from torch.distributed.device_mesh import DeviceMesh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.distributed import ProcessGroup, Work


# Ranks whose words go round a ring, as gloo gathers them; more take turns in pairs.
_MOST_IN_A_RING = 16


class Ranks:
    """The ranks of a mesh; without a mesh, this process alone.

    Those along the first dimension share out rows, and `size`, `rank` and `group` are theirs. Those
    along the second, where there is one, have the same rows and share out columns of B.
    """

    def __init__(self, mesh: DeviceMesh | None, like: object = None) -> None:
        """Look up the process groups of the mesh; without one, be where a tensor is."""
        if mesh is not None:
            _check(mesh)
        self.mesh = mesh
        self.size, self.rank, self.group = _along(mesh, 0)
        self.columns, self.column, self.group_of_columns = _along(mesh, 1)
        of_tensor = like.device if isinstance(like, Tensor) else torch.device("cpu")
        place = of_tensor if mesh is None else mesh.device_type
        self.device = torch.empty(0, device=place).device  # with the device's number
        self.device_type = self.device.type

    @property
    def is_alone(self) -> bool:
        """Whether there is one rank, which has nobody to ask."""
        return self.group is None and self.group_of_columns is None

    def name(self, rank: int, column: int) -> str:
        """Name a rank for errors: by its place in the mesh."""
        two = self.mesh is not None and self.mesh.ndim == 2  # noqa: PLR2004
        return f"rank {(rank, column)}" if two else f"rank {rank}"

    def all_gather(self, row: Tensor, product: str) -> Tensor:
        """Give the rows of the ranks of `group`, on the CPU; `product` names who waits for them."""
        return self._start_to_gather(row, self.group, self.size, product)()

    def all_gather_of_columns(self, row: Tensor, product: str) -> Tensor:
        """Give the rows of the ranks that have the same rows as this one, on the CPU."""
        return self._start_to_gather(row, self.group_of_columns, self.columns, product)()

    def all_gather_of_all(self, row: Tensor, product: str) -> Tensor:
        """Give the rows of all ranks, on the CPU: shape `(size, columns, length of a row)`."""
        return self.start_to_gather_of_all(row, product)()

    def start_to_gather_of_all(self, row: Tensor, product: str) -> Callable[[], Tensor]:
        """Start to gather the rows of all ranks; what is returned waits for them."""
        rows = self._start_to_gather(row, self.group, self.size, product)

        def together() -> Tensor:
            of_all = self.all_gather_of_columns(rows().flatten(), product)
            return of_all.view(self.columns, self.size, row.numel()).transpose(0, 1)

        return together

    def _start_to_gather(
        self, row: Tensor, group: ProcessGroup | None, size: int, product: str
    ) -> Callable[[], Tensor]:
        if group is None:
            return lambda: row.unsqueeze(0)
        own = row.to(self._device_of_words(group))

        def in_few_steps() -> Tensor:  # of which each needs what the one before it brought
            try:
                return _gather_in_few_steps(own, group, size).cpu()
            except RuntimeError as error:
                raise _left_alone(product) from error

        if size > _MOST_IN_A_RING:
            return in_few_steps
        rows = own.new_empty(size * row.numel())
        try:
            work = torch.distributed.all_gather_into_tensor(rows, own, group=group, async_op=True)
        except RuntimeError as error:
            raise _left_alone(product) from error
        transfer = Transfer(work, product)

        def in_a_ring() -> Tensor:
            transfer.wait()
            return rows.view(size, row.numel()).cpu()

        return in_a_ring

    def _device_of_words(self, group: ProcessGroup) -> torch.device:
        """Give the CPU where a group has a backend for it: nobody waits for the device then.

        Also, gloo sends and receives tensors of the CPU alone.
        """
        cpu = torch.device("cpu")
        return cpu if cpu in group._device_types else self.device  # noqa: SLF001

    def add_up(self, tensor: Tensor, product: str) -> Tensor:
        """Add up a tensor over the ranks that have the same rows: a new one, the same on each.

        Numbers of 16 bits are added in float32 and rounded once.
        """
        small = tensor.dtype in {torch.float16, torch.bfloat16}
        total = tensor.to(torch.float32) if small else tensor.resolve_conj().clone()
        numbers = torch.view_as_real(total) if total.is_complex() else total
        try:
            torch.distributed.all_reduce(numbers, group=self.group_of_columns)
        except RuntimeError as error:
            raise _left_alone(product) from error
        return total.to(tensor.dtype)

    def from_first_column(self, tensor: Tensor, product: str) -> Tensor:
        """Give what the first of the ranks with the same rows has, in the memory of `tensor`."""
        if self.group_of_columns is not None and tensor.numel() > 0:
            try:
                torch.distributed.broadcast(
                    _bytes_of(tensor), group=self.group_of_columns, group_src=0
                )
            except RuntimeError as error:
                raise _left_alone(product) from error
        return tensor

    def largest(self, numbers: Tensor, product: str) -> Tensor:
        """Give the largest of each number on all ranks, on the CPU."""
        if self.group is None:
            return numbers
        largest = numbers.to(self._device_of_words(self.group))
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


def _check(mesh: object) -> None:
    """Refuse what no ranks can be looked up in.

    Raises:
        ValueError: It is none of one or two dimensions with this process in it.

    """
    if not isinstance(mesh, DeviceMesh):
        message = f"mesh must be None or a DeviceMesh, but received {type(mesh).__name__}"
    elif mesh.ndim not in {1, 2}:
        message = f"mesh must have one or two dimensions, but received {mesh.ndim}"
    elif mesh.get_coordinate() is None:
        message = f"mesh must have this process as a rank, but received {mesh}"
    else:
        return
    raise ValueError(message)


def _along(mesh: DeviceMesh | None, dim: int) -> tuple[int, int, ProcessGroup | None]:
    """Give the number of ranks along a dimension, the number of this one, and their group."""
    if mesh is None or mesh.ndim <= dim:
        return 1, 0, None
    size = mesh.size(dim)
    return size, mesh.get_local_rank(dim), mesh.get_group(dim) if size > 1 else None


def _gather_in_few_steps(row: Tensor, group: ProcessGroup, size: int) -> Tensor:
    """Give the rows of all ranks, of which each step doubles the number (Bruck's algorithm)."""
    rank = torch.distributed.get_rank(group)
    rows = row.new_empty(size, row.numel())
    rows[0] = row  # those of ranks that follow are behind it
    known = 1
    while known < size:
        more = min(known, size - known)
        operations = [
            P2POp(isend, rows[:more].clone(), group=group, group_peer=(rank - known) % size),
            P2POp(irecv, rows[known : known + more], group=group, group_peer=(rank + known) % size),
        ]
        for work in batch_isend_irecv(operations):
            work.wait()
        known += more
    return rows.roll(rank, 0)


def _bytes_of(rows: Tensor) -> Tensor:
    size = rows.shape[1:].numel() * rows.element_size()
    return rows.view(-1).view(torch.uint8).view(len(rows), size)


def _left_alone(product: str) -> RuntimeError:
    return RuntimeError(
        f"{product} could not exchange rows with the other ranks: one of them ended, or did not "
        "call it, or its loss does not use the product"
    )
