"""The products of a matrix whose rows are shared out to ranks, each the derivative of the others.

What mm, mm_transposed and sddmm are on one process, they are here on all ranks together: the
second operand of mm and sddmm comes with its halo, the result of mm_transposed sends its halo back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from spgrad.distributed._plan import Round

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spgrad.distributed._agreement import Agreement
    from spgrad.distributed._exchange import Arrival
    from spgrad.distributed._places import Places
    from spgrad.distributed._plan import Interior, Plan

_pattern_mm_of_rows = torch.ops.spgrad.pattern_mm_of_rows.default
_pattern_mm_backward = torch.ops.spgrad.pattern_mm_backward.default

# The rows of an operand that a round needs, where they are already here.
Needed = tuple[Tensor, ...]


class Task(NamedTuple):
    """A plan, who multiplies with it: the text for errors, and what ranks are yet to agree on."""

    plan: Plan
    product: str
    agreement: Agreement | None = None

    def agree(self) -> None:
        """Wait for the other ranks: before rows are sent, and before a result is returned."""
        if self.agreement is not None:
            self.agreement.wait()

    def rounds(self, B: Tensor) -> tuple[Round, ...]:
        """Give the rounds for rows as wide as those of B."""
        return self.plan.rounds(B.shape[1] * B.element_size())


def _of(values: Tensor, part: Interior | Round) -> Tensor:
    return values if part.entries is None else part.entries.take(values)


def _start(task: Task, part: Round, B: Tensor) -> Arrival:
    B = B.resolve_conj()
    needed = B.new_empty(part.pattern.shape[-1], B.shape[1])
    packed = part.exchange.pack(B)
    task.agree()
    arrival = part.exchange.start(packed, needed[part.own :], task.product)
    part.own_rows.copy(B, needed[: part.own])
    return arrival._replace(rows=needed)


class _Halo:
    """The rows of B that each round needs, fetched one round after the other.

    The first is under way from the start. Only where there is one round they are kept.
    """

    def __init__(self, task: Task, B: Tensor, needed: Needed) -> None:
        """Start to fetch what is not here."""
        self._task, self._B, self._needed = task, B, needed
        self._rounds = task.rounds(B)
        self._first = _start(task, self._rounds[0], B) if self._rounds and not needed else None

    def __iter__(self) -> Iterator[tuple[Round, Tensor]]:
        """Give each round and the rows that it needs."""
        for number, part in enumerate(self._rounds):
            if self._needed:
                rows = self._needed[number]
            elif number == 0 and self._first is not None:
                rows = self._first.wait()
            else:
                rows = _start(self._task, part, self._B).wait()
            yield part, rows
            if len(self._rounds) == 1:
                self._needed = (rows,)

    @property
    def kept(self) -> Needed:
        """What a later product need not fetch again."""
        return self._needed


def mm(task: Task, values: Tensor, B: Tensor, needed: Needed) -> tuple[Tensor, Needed]:
    """Multiply; also give the rows of B that a later product need not fetch again."""
    halo = _Halo(task, B, needed)
    interior = task.plan.interior
    C = _multiply(task, interior, values, B)
    for number, (part, rows) in enumerate(halo):
        of_part = _multiply(task, part, values, rows)
        if number == 0:
            part.rows.put_rows(of_part, C)  # to add them to zeros would lose the sign of a zero
        else:
            part.rows.add(of_part, C)
    task.agree()
    return C, halo.kept


def _multiply(task: Task, part: Interior | Round, values: Tensor, rows: Tensor) -> Tensor:
    """Multiply a part's rows, with the bits that they have in the product of the whole matrix."""
    of_part = _of(values, part)
    is_in_rounds = part.column_numbers is None and isinstance(part, Round)
    if rows.device.type != "cpu" or is_in_rounds:
        return part.pattern.mm(of_part, rows)
    C: Tensor = _pattern_mm_of_rows(
        *part.pattern._tensors,  # noqa: SLF001
        part.pattern.shape,
        of_part,
        rows,
        task.plan.whole,
        part.first_column,
        part.column_numbers,
    )
    return C


def sddmm(task: Task, X: Tensor, Y: Tensor, needed: Needed) -> tuple[Tensor, Needed]:
    """Multiply at the entries; also give the rows of Y that a later product need not fetch."""
    halo = _Halo(task, Y, needed)
    interior = task.plan.interior
    products = _OfEntries(task)
    products.add(interior, interior.pattern.sddmm(X, Y))
    products.put_together()  # while the halo is under way
    for part, rows in halo:
        products.add(part, part.pattern.sddmm(part.rows.take(X), rows))
    task.agree()
    return products.put_together(), halo.kept


class _OfEntries:
    """What each part has for its entries, and where they are put into the order of all."""

    def __init__(self, task: Task) -> None:
        """Have none yet."""
        self._entries = task.plan.entries
        self._parts: list[tuple[Places, Tensor]] = []
        self._together: Tensor | None = None

    def add(self, part: Interior | Round, products: Tensor) -> None:
        """Keep those of a part."""
        if part.entries is None:
            self._together = products
        else:
            self._parts.append((part.entries, products))

    def put_together(self) -> Tensor:
        """Put those that there are into their places."""
        for places, products in self._parts:
            if self._together is None:
                self._together = products.new_empty(self._entries)
            places.put(products, self._together)
        self._parts.clear()
        assert self._together is not None  # noqa: S101 - the interior is a part
        return self._together


def mm_transposed(task: Task, values: Tensor, X: Tensor) -> Tensor:
    """Multiply the transposed matrix; sums for rows of other ranks are sent to them."""
    partial_sums = (
        (part, part.pattern.mm_transposed(_of(values, part), part.rows.take(X)))
        for part in task.rounds(X)
    )
    interior = task.plan.interior
    return _add_up(
        task, partial_sums, lambda: interior.pattern.mm_transposed(_of(values, interior), X)
    )


def gradients(
    task: Task, values: Tensor, B: Tensor, grad: Tensor, needed: Needed
) -> tuple[Tensor, Tensor]:
    """Give both gradients of mm, in one pass over the entries."""
    grad_values = _OfEntries(task)

    def of_part(part: Interior | Round, rows: Tensor, grad_rows: Tensor) -> Tensor:
        pattern = part.pattern
        products: Tensor
        partial_sum: Tensor
        products, partial_sum = _pattern_mm_backward(
            *pattern._tensors,  # noqa: SLF001
            pattern.shape,
            _of(values, part),
            rows,
            grad_rows,
        )
        grad_values.add(part, products)
        return partial_sum

    def of_interior() -> Tensor:
        partial_sum = of_part(task.plan.interior, B, grad)
        grad_values.put_together()  # while sums are under way
        return partial_sum

    partial_sums = (
        (part, of_part(part, rows, part.rows.take(grad))) for part, rows in _Halo(task, B, needed)
    )
    grad_B = _add_up(task, partial_sums, of_interior)
    return grad_values.put_together(), grad_B


def _add_up(
    task: Task, partial_sums: Iterator[tuple[Round, Tensor]], interior: Callable[[], Tensor]
) -> Tensor:
    """Send the sums of each round to the ranks of the halo; add up this rank's own and those.

    The interior is done while the first are under way.
    """
    total = None
    for part, partial_sum in partial_sums:
        task.agree()
        arrival = part.exchange.start_back(partial_sum[part.own :], task.product)
        if total is None:
            total = interior()
        part.own_rows.add(partial_sum[: part.own], total)
        part.exchange.add_back(total, arrival)
    if total is None:
        total = interior()
    task.agree()
    return total
