"""Gradients of the products over ranks, to any order, each out of the same products.

With conjugates written as x̄ and T for the transpose of the matrix:

    C = mm(v, B)              dv = sddmm(G, B̄)             dB = mm_transposed(v̄, G)
    R = mm_transposed(v, X)   dv = sddmm(X̄, G)             dX = mm(v̄, G)
    d = sddmm(X, Y)           dX = mm(g, Ȳ)                dY = mm_transposed(g, X̄)

Where ranks share out the columns of B, too, those with the same rows have copies of v. To use one
is `copies`, whose gradient is the sum over these ranks; to have a sum is `add_up`, whose gradient
is a copy. Each is the other's derivative, since all copies stand for one tensor.

Ranks agree in each of these steps on what they are about to do, before rows travel. Rows of the
halo that one product fetched are handed on to those that need the same rows: they are no operand of
their own, since their derivative is that of the operand that they were fetched from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from spgrad.distributed import _products
from spgrad.distributed._agreement import Agreement, Words, agree

if TYPE_CHECKING:
    from spgrad.distributed._plan import Plan
    from spgrad.distributed._products import Needed
    from spgrad.distributed._ranks import Ranks

_MAPPED = (
    "products of a RowSharded over several ranks must be called without torch.func.vmap and "
    "is_grads_batched, but received a batch: its items can be columns of one B"
)


class Sharded(NamedTuple):
    """What the products need of a sharded matrix."""

    ranks: Ranks
    number: int  # the same on all ranks
    plan: Plan
    agreement: Agreement | None = None  # for the next product

    def words(self, step: str, operand: Tensor, wanted: tuple[bool, ...]) -> Words:
        """Say that this rank takes a step, and on which operands."""
        return Words(
            step,
            structure=self.number,
            width=operand.shape[1],
            dtype=operand.dtype,
            gradients=wanted,
        )

    def agree(self, step: str, operand: Tensor, wanted: tuple[bool, ...]) -> None:
        """See that all ranks take this step, on operands alike."""
        if not self.ranks.is_alone:
            agree(self.ranks, self.words(step, operand, wanted))

    def agreeing(self, step: str, operand: Tensor, wanted: tuple[bool, ...]) -> Sharded:
        """Start to see to that: a product of what this returns waits for the other ranks."""
        if self.ranks.is_alone:
            return self
        return self._replace(agreement=Agreement(self.ranks, self.words(step, operand, wanted)))

    def task(self, product: str) -> _products.Task:
        """Name who multiplies."""
        return _products.Task(self.plan, f"RowSharded.{product}", self.agreement)


def copies(ranks: Ranks, tensor: Tensor) -> Tensor:
    """Use a tensor of which ranks along the columns of B have copies: gradients are added up."""
    if ranks.columns == 1:
        return tensor
    copy: Tensor = _Copies.apply(ranks, tensor)
    return copy


def add_up(ranks: Ranks, tensor: Tensor) -> Tensor:
    """Add up what the ranks along the columns of B have: each gets the same."""
    if ranks.columns == 1:
        return tensor
    total: Tensor = _AddUp.apply(ranks, tensor)
    return total


def mm(sharded: Sharded, values: Tensor, B: Tensor, needed: Needed = ()) -> tuple[Tensor, Needed]:
    """Multiply; also give the rows of B that were fetched."""
    if sharded.ranks.is_alone:
        return sharded.plan.interior.pattern.mm(values, B), ()
    C, *kept = _Mm.apply(sharded, values, B, needed)
    return C, tuple(kept)


def sddmm(sharded: Sharded, X: Tensor, Y: Tensor, needed: Needed = ()) -> tuple[Tensor, Needed]:
    """Multiply at the entries; also give the rows of Y that were fetched."""
    if sharded.ranks.is_alone:
        return sharded.plan.interior.pattern.sddmm(X, Y), ()
    products, *kept = _Sddmm.apply(sharded, X, Y, needed)
    return products, tuple(kept)


def mm_transposed(sharded: Sharded, values: Tensor, X: Tensor) -> Tensor:
    """Multiply the transposed matrix."""
    product: Tensor = _MmTransposed.apply(sharded, values, X)
    return product


def _conj(needed: Needed) -> Needed:
    return tuple(rows.conj() for rows in needed)


def _save(ctx: Any, sharded: Sharded, operands: tuple[Tensor, ...], kept: Needed) -> None:
    ctx.sharded = sharded
    ctx.set_materialize_grads(False)  # of the fetched rows they would be zeros
    ctx.kept = len(kept)
    ctx.mark_non_differentiable(*kept)
    ctx.save_for_backward(*operands, *kept)
    ctx.save_for_forward(*operands)


def _sum(*terms: Tensor | None) -> Tensor | None:
    """Add up what there is."""
    total = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


def _refuse_batches(*grads: Tensor | None) -> None:
    is_batch = torch._C._functorch.is_legacy_batchedtensor  # noqa: SLF001 - of is_grads_batched
    if any(grad is not None and is_batch(grad) for grad in grads):
        raise NotImplementedError(_MAPPED)


def _defined(grad: Tensor | None, like: Tensor, *shape: int) -> Tensor:
    """Give zeros for a gradient that autograd left out: the other ranks may have theirs."""
    _refuse_batches(grad)
    return like.new_zeros(shape) if grad is None else grad


def _given(*tensors: Tensor | None) -> tuple[bool, ...]:
    return tuple(tensor is not None for tensor in tensors)


_FORWARD = "the forward derivative of RowSharded"


class _OverRanks(torch.autograd.Function):
    """A step of all ranks, mapped over nothing: they would have to agree on that, too."""

    @staticmethod
    def vmap(*_: Any) -> Any:
        raise NotImplementedError(_MAPPED)


class _Copies(_OverRanks):
    """The identity: of one tensor, a copy for each rank along the columns of B."""

    @staticmethod
    def forward(_: Ranks, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: Any) -> None:
        ctx.ranks = inputs[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return None, add_up(ctx.ranks, grad)

    @staticmethod
    def jvp(_: Any, __: Any, tensor_t: Tensor) -> Tensor:
        return tensor_t.view_as(tensor_t)


class _AddUp(_OverRanks):
    """The sum over the ranks along the columns of B, of which all have a copy."""

    @staticmethod
    def forward(ranks: Ranks, tensor: Tensor) -> Tensor:
        return ranks.add_up(tensor, "RowSharded")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: Any) -> None:
        ctx.ranks = inputs[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return None, copies(ctx.ranks, grad)

    @staticmethod
    def jvp(ctx: Any, _: Any, tensor_t: Tensor) -> Tensor:
        return add_up(ctx.ranks, tensor_t)


class _Mm(_OverRanks):
    @staticmethod
    def forward(sharded: Sharded, values: Tensor, B: Tensor, needed: Needed) -> tuple[Tensor, ...]:
        C, kept = _products.mm(sharded.task("mm"), values, B, needed)
        return C, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        sharded, values, B, _ = inputs
        _save(ctx, sharded, (values, B), output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        values, B, *needed = ctx.saved_tensors
        sharded, (_, wants_values, wants_B, _) = ctx.sharded, ctx.needs_input_grad
        grad = _defined(grad, B, sharded.plan.rows, B.shape[1])
        step = "the backward pass of RowSharded.mm"
        sharded = sharded.agreeing(step, grad, (wants_values, wants_B))
        grad_values = grad_B = None
        if wants_values and wants_B:
            grad_values, grad_B = _Gradients.apply(sharded, values, B, grad, tuple(needed))
        elif wants_values:
            grad_values, _ = sddmm(sharded, grad, B.conj(), _conj(tuple(needed)))
        else:
            grad_B = mm_transposed(sharded, values.conj(), grad)
        return None, grad_values, grad_B, None

    @staticmethod
    def jvp(ctx: Any, _: Any, values_t: Tensor | None, B_t: Tensor | None, __: Any) -> Any:
        values, B = ctx.saved_tensors[:2]
        sharded = ctx.sharded
        sharded.agree(_FORWARD, B, _given(values_t, B_t))
        by_values = None if values_t is None else mm(sharded, values_t, B)[0]
        by_B = None if B_t is None else mm(sharded, values, B_t)[0]
        return _sum(by_values, by_B), *[None] * ctx.kept


class _Gradients(_OverRanks):
    """Both gradients of mm: sddmm(grad, B̄) and mm_transposed(v̄, grad)."""

    @staticmethod
    def forward(
        sharded: Sharded, values: Tensor, B: Tensor, grad: Tensor, needed: Needed
    ) -> tuple[Tensor, Tensor]:
        return _products.gradients(sharded.task("mm"), values, B, grad, needed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: Any) -> None:
        sharded, values, B, grad, needed = inputs
        _save(ctx, sharded, (values, B, grad), ())
        ctx.needed = needed

    @staticmethod
    def backward(ctx: Any, by_values: Tensor | None, by_B: Tensor | None) -> tuple[Any, ...]:
        values, B, grad = ctx.saved_tensors
        sharded = ctx.sharded
        _, wants_values, wants_B, wants_grad, _ = ctx.needs_input_grad
        _refuse_batches(by_values, by_B)
        wanted = (wants_values, wants_B, wants_grad, *_given(by_values, by_B))
        sharded.agree("a second backward pass of RowSharded.mm", grad, wanted)
        of_values = of_B = of_grad = None
        if by_values is not None:
            if wants_B:
                of_B = mm_transposed(sharded, by_values.conj(), grad)
            if wants_grad:
                of_grad, _ = mm(sharded, by_values, B, ctx.needed)
        if by_B is not None:
            needed: Needed = ()
            if wants_grad:
                more, needed = mm(sharded, values, by_B)
                of_grad = _sum(of_grad, more)
            if wants_values:
                of_values, _ = sddmm(sharded, grad, by_B.conj(), _conj(needed))
        return None, of_values, of_B, of_grad, None

    @staticmethod
    def jvp(
        ctx: Any,
        _: Any,
        values_t: Tensor | None,
        B_t: Tensor | None,
        grad_t: Tensor | None,
        __: Any,
    ) -> tuple[Tensor, Tensor]:
        values, B, grad = ctx.saved_tensors
        sharded = ctx.sharded
        sharded.agree(_FORWARD, grad, _given(values_t, B_t, grad_t))
        of_values = of_B = None
        if grad_t is not None:
            of_values, _ = sddmm(sharded, grad_t, B.conj(), _conj(ctx.needed))
            of_B = mm_transposed(sharded, values.conj(), grad_t)
        if B_t is not None:
            of_values = _sum(of_values, sddmm(sharded, grad, B_t.conj())[0])
        if values_t is not None:
            of_B = _sum(of_B, mm_transposed(sharded, values_t.conj(), grad))
        # PyTorch takes no None for a result of several.
        return (
            torch.zeros_like(values) if of_values is None else of_values,
            torch.zeros_like(B) if of_B is None else of_B,
        )


class _MmTransposed(_OverRanks):
    @staticmethod
    def forward(sharded: Sharded, values: Tensor, X: Tensor) -> Tensor:
        return _products.mm_transposed(sharded.task("mm_transposed"), values, X)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: Any) -> None:
        sharded, values, X = inputs
        _save(ctx, sharded, (values, X), ())

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
        values, X = ctx.saved_tensors
        sharded, (_, wants_values, wants_X) = ctx.sharded, ctx.needs_input_grad
        grad = _defined(grad, X, sharded.plan.own_columns, X.shape[1])
        step = "the backward pass of a transposed product of RowSharded"
        sharded.agree(step, grad, (wants_values, wants_X))
        of_values = of_X = None
        needed: Needed = ()
        if wants_X:
            of_X, needed = mm(sharded, values.conj(), grad)
        if wants_values:
            of_values, _ = sddmm(sharded, X.conj(), grad, needed)
        return None, of_values, of_X

    @staticmethod
    def jvp(ctx: Any, _: Any, values_t: Tensor | None, X_t: Tensor | None) -> Tensor | None:
        values, X = ctx.saved_tensors
        sharded = ctx.sharded
        sharded.agree(_FORWARD, X, _given(values_t, X_t))
        by_values = None if values_t is None else mm_transposed(sharded, values_t, X)
        return _sum(by_values, None if X_t is None else mm_transposed(sharded, values, X_t))


class _Sddmm(_OverRanks):
    @staticmethod
    def forward(sharded: Sharded, X: Tensor, Y: Tensor, needed: Needed) -> tuple[Tensor, ...]:
        products, kept = _products.sddmm(sharded.task("sddmm"), X, Y, needed)
        return products, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        sharded, X, Y, _ = inputs
        _save(ctx, sharded, (X, Y), output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        X, Y, *needed = ctx.saved_tensors
        sharded, (_, wants_X, wants_Y, _) = ctx.sharded, ctx.needs_input_grad
        grad = _defined(grad, X, sharded.plan.entries)
        step = "the backward pass of RowSharded.sddmm"
        sharded = sharded.agreeing(step, X, (wants_X, wants_Y))
        of_X = of_Y = None
        if wants_X:
            of_X, _ = mm(sharded, grad, Y.conj(), _conj(tuple(needed)))
        if wants_Y:
            of_Y = mm_transposed(sharded, grad, X.conj())
        return None, of_X, of_Y, None

    @staticmethod
    def jvp(ctx: Any, _: Any, X_t: Tensor | None, Y_t: Tensor | None, __: Any) -> Any:
        X, Y = ctx.saved_tensors[:2]
        sharded = ctx.sharded
        sharded.agree(_FORWARD, X, _given(X_t, Y_t))
        by_X = None if X_t is None else sddmm(sharded, X_t, Y)[0]
        by_Y = None if Y_t is None else sddmm(sharded, X, Y_t)[0]
        return _sum(by_X, by_Y), *[None] * ctx.kept
