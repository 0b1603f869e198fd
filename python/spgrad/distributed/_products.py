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

_empty_large = torch.ops.spgrad.empty_large.default
_pattern_mm_into = torch.ops.spgrad.pattern_mm_into.default
_pattern_mm_backward_into = torch.ops.spgrad.pattern_mm_backward_into.default
_pattern_sddmm_into = torch.ops.spgrad.pattern_sddmm_into.default

# On CPU each run of rows is a product; with more, one that is then put there takes less time.
_MOST_RUNS_IN_PLACE = 4

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


def _empty(like: Tensor, *size: int) -> Tensor:
    """Make a tensor to write into, in the memory of large results where these have one."""
    if like.device.type != "cpu":
        return like.new_empty(size)
    empty: Tensor = _empty_large(size, like.dtype)
    return empty


def _start(task: Task, part: Round, B: Tensor) -> Arrival:
    B = B.resolve_conj().resolve_neg()  # what is sent may be B's own memory
    needed = _empty(B, part.pattern.shape[-1], B.shape[1])
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
    C = _multiply(task, task.plan.interior, values, B)
    for number, (part, rows) in enumerate(halo):
        if number > 0:
            part.rows.add(_multiply(task, part, values, rows), C)
        elif _is_in_few_runs(part.rows) and not _is_in_rounds(part):
            _multiply_into(task, part, values, rows, part.rows.runs, C)
        else:  # to add them to zeros would lose the sign of a zero
            part.rows.put_rows(_multiply(task, part, values, rows), C)
    task.agree()
    return C, halo.kept


def _is_in_few_runs(rows: Places) -> bool:
    return rows.places is None and len(rows.runs) <= _MOST_RUNS_IN_PLACE


def _is_in_rounds(part: Interior | Round) -> bool:
    """Whether rows are summed in several parts, so that they lack the bits of the whole matrix."""
    return part.column_numbers is None and isinstance(part, Round)


def _multiply(task: Task, part: Interior | Round, values: Tensor, rows: Tensor) -> Tensor:
    """Multiply a part's rows."""
    if _is_in_rounds(part):
        return part.pattern.mm(_of(values, part), rows)
    count = part.pattern.shape[0]
    C = _empty(rows, count, rows.shape[1])
    _multiply_into(task, part, values, rows, ((0, count),), C)
    return C


def _multiply_into(  # noqa: PLR0913, PLR0917 - a product and its place
    task: Task,
    part: Interior | Round,
    values: Tensor,
    rows: Tensor,
    runs: tuple[tuple[int, int], ...],
    C: Tensor,
) -> None:
    """Multiply a part's rows, in order, into these runs of rows of C."""
    _pattern_mm_into(
        *part.pattern._tensors,  # noqa: SLF001
        part.pattern.shape,
        _of(values, part),
        rows,
        task.plan.whole,
        part.first_column,
        part.column_numbers,
        [row for run in runs for row in run],
        C,
    )


def sddmm(task: Task, X: Tensor, Y: Tensor, needed: Needed) -> tuple[Tensor, Needed]:
    """Multiply at the entries; also give the rows of Y that a later product need not fetch."""
    halo = _Halo(task, Y, needed)
    interior = task.plan.interior
    products = _OfEntries(task, X)

    def multiply(part: Interior | Round, X: Tensor, rows: Tensor) -> None:
        pattern = part.pattern
        _pattern_sddmm_into(*pattern._tensors, pattern.shape, X, rows, products.room(part))  # noqa: SLF001

    multiply(interior, X, Y)
    products.put_together()  # while the halo is under way
    for part, rows in halo:
        multiply(part, part.rows.take(X), rows)
    task.agree()
    return products.put_together(), halo.kept


class _OfEntries:
    """A number for each entry, of which parts write theirs: in place where they are one run."""

    def __init__(self, task: Task, like: Tensor) -> None:
        """Have none yet."""
        self._together = _empty(like, task.plan.entries)
        self._beside: list[tuple[Places, Tensor]] = []

    def room(self, part: Interior | Round) -> Tensor:
        """Give the place for those of a part."""
        if part.entries is None:
            return self._together
        room = part.entries.view(self._together)
        if room is None:
            room = _empty(self._together, part.pattern.nnz)
            self._beside.append((part.entries, room))
        return room

    def put_together(self) -> Tensor:
        """Put those that were written beside into their places."""
        for places, numbers in self._beside:
            places.put(numbers, self._together)
        self._beside.clear()
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
    grad_values = _OfEntries(task, values)

    def of_part(part: Interior | Round, rows: Tensor, grad_rows: Tensor) -> Tensor:
        pattern = part.pattern
        partial_sum: Tensor = _pattern_mm_backward_into(
            *pattern._tensors,  # noqa: SLF001
            pattern.shape,
            _of(values, part),
            rows,
            grad_rows,
            grad_values.room(part),
        )
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
