"""Modules whose parameters are parts of those that all ranks have together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spgrad.distributed import _autograd, _construction
from spgrad.distributed._agreement import Words, agree
from spgrad.distributed._operands import wrong_with
from spgrad.distributed._parts import mark
from spgrad.distributed._ranks import Ranks
from spgrad.distributed._row_sharded import RowSharded
from spgrad.distributed._scatter import Whole, scatter
from spgrad.distributed._structure import sizes_of
from spgrad.nn import SparseLinear as WholeLinear
from spgrad.nn._layer_pattern import uniform_bounds

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from typing_extensions import Self


class ModuleOfRanks(nn.Module):
    """What the modules share: they tell which of their parameters are parts, and mark them."""

    def __init__(self, A: RowSharded) -> None:
        """Keep the matrix."""
        super().__init__()
        if not isinstance(A, RowSharded):
            message = f"A must be a RowSharded, but received {type(A).__name__}"
            raise ValueError(message)  # noqa: TRY004 - as the products do
        self.A = A

    def parts(self) -> dict[str, tuple[int, ...]]:
        """Name the parameters that are parts, and where the part of each rank begins."""
        raise NotImplementedError

    def _save_to_state_dict(
        self,
        destination: dict[str, Any],
        prefix: str,
        keep_vars: bool,  # noqa: FBT001
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, starts in self.parts().items():
            mark(destination[prefix + name], starts, self.A.rank)


class ShardedValues(ModuleOfRanks):
    """The values of a :class:`RowSharded`, as a parameter of a module.

    >>> import torch, spgrad
    >>> A = spgrad.distributed.RowSharded.from_rank(torch.eye(2).to_sparse_csr())
    >>> edges = spgrad.distributed.ShardedValues(A, torch.tensor([2.0, 3.0]))
    >>> edges(torch.ones(2, 1))
    tensor([[2.],
            [3.]], grad_fn=<PatternMmBackward>)

    :class:`TrainingState`, :func:`data_parallel` and :func:`sharded_parameters` know that the
    values of a rank are no copies of those of another one.

    Attributes:
        A: The matrix.
        values: Parameter of shape ``(nnz,)``: the values of this rank's entries.

    Args:
        A: The matrix.
        values: The first values of this rank, of shape ``(nnz,)``, which are copied.

    Shapes:
        Input: this rank's rows of B, ``(rows, p)``; output: this rank's rows of C. The module is
        ``A.mm``.

    Raises:
        ValueError: ``A`` is no :class:`RowSharded`, or ``values`` has another shape. In the forward
            pass: as :meth:`RowSharded.mm`.
        RuntimeError: ``values`` has a dtype that is not supported, or is on another device than
            ``A``. In the forward pass: as :meth:`RowSharded.mm`.

    """

    values: nn.Parameter

    def __init__(self, A: RowSharded, values: Tensor) -> None:
        """Make the parameter."""
        super().__init__(A)
        wrong = wrong_with(values, "values", (A.nnz,), A.device)
        if wrong is not None:
            raise wrong
        self.values = nn.Parameter(values.detach().clone())

    def parts(self) -> dict[str, tuple[int, ...]]:
        """Name the parameter and where the entries of each rank begin."""
        return {"values": self.A.entry_starts}

    def forward(self, B: Tensor) -> Tensor:
        """Multiply the matrix with these values by a dense one."""
        return self.A.mm(self.values, B)

    def extra_repr(self) -> str:
        """Show the matrix."""
        return repr(self.A)


class SparseLinear(ModuleOfRanks):
    """A :class:`spgrad.nn.SparseLinear` whose features are shared out to ranks.

    Each rank has some inputs and some outputs, with the weights and biases of these. Only inputs
    that weights of other ranks need travel.

    >>> import torch, spgrad
    >>> mask = torch.tensor([[1, 0, 1], [0, 1, 0]])
    >>> A = spgrad.distributed.RowSharded.from_rank(mask.float().to_sparse_csr())
    >>> layer = spgrad.distributed.SparseLinear(A)
    >>> layer
    SparseLinear(in_features=3, out_features=2, bias=True, RowSharded(shape=(2, 3), \
rank 0 of 1: 2 rows, 3 entries, 0 rows of halo))
    >>> layer(torch.ones(5, 3)).shape
    torch.Size([5, 2])

    Attributes:
        A: The matrix: the places of the weights.
        weight: Parameter of shape ``(nnz,)``: the weights of this rank's outputs.
        bias: Parameter of this rank's outputs, or None.

    Args:
        A: A matrix of shape ``(out_features, in_features)``, which has the places of the weights.
        bias: Whether to add a learned bias.
        dtype: Dtype of the parameters.
        generator: Source of the random numbers of this rank, on the device of ``A``; PyTorch's
            default one if None. Ranks with the same state draw the same numbers.

    Shapes:
        Input ``(*, own inputs)``, output ``(*, own outputs)``: ``A.column_starts`` and
        ``A.row_starts`` tell which these are. The leading dimensions are the same on all ranks
        along the first dimension of the mesh; those along the second have samples of their own.

    Raises:
        ValueError: ``A`` is no :class:`RowSharded`, or ``bias`` is no bool. In the forward pass: as
            :meth:`RowSharded.mm`, whose B is the input, transposed.
        RuntimeError: In the forward pass, as :meth:`RowSharded.mm`.

    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        A: RowSharded,
        bias: bool = True,  # noqa: FBT001, FBT002 - as torch.nn.Linear has it
        *,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw the first values."""
        super().__init__(A)
        if not isinstance(bias, bool):
            message = f"bias must be True or False, but received {bias!r}; dtype is a keyword"
            raise ValueError(message)  # noqa: TRY004 - as spgrad.nn.SparseLinear does
        rows = sizes_of(A.row_starts)[A.rank]
        self.weight = nn.Parameter(torch.empty(A.nnz, dtype=dtype, device=A.device))
        if bias:
            self.bias = nn.Parameter(torch.empty(rows, dtype=dtype, device=A.device))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters(generator)

    @classmethod
    def from_rank(
        cls, layer: WholeLinear | None, src: int = 0, mesh: DeviceMesh | None = None
    ) -> Self:
        """Share out the features of a layer that one rank has.

        >>> import torch, spgrad
        >>> whole = spgrad.nn.SparseLinear(64, 16)
        >>> layer = spgrad.distributed.SparseLinear.from_rank(whole)
        >>> x = torch.rand(5, 64)
        >>> torch.equal(layer(x), whole(x))
        True

        Args:
            layer: The layer, on rank ``src``; None on the others.
            src: The rank in the mesh that has it; where the mesh has two dimensions, the first of
                these ranks, ``(src, 0)``.
            mesh: As :meth:`RowSharded.from_local` takes it. Features are shared out as
                ``torch.chunk`` has it.

        Returns:
            A layer with copies of the weights and of the bias.

        Raises:
            ValueError: ``layer`` is no :class:`spgrad.nn.SparseLinear` on rank ``src``.
            RuntimeError: Ranks disagree.

        """
        ranks = Ranks(mesh, layer.col_indices if isinstance(layer, WholeLinear) else None)
        built = _construction.from_rank(ranks, lambda: _whole(layer, ranks.size), src, None)
        A, source = RowSharded(built), built.source
        assert source is not None  # noqa: S101 - for mypy
        layer = None if built.whole is None else layer  # only the source's
        weight = A.local(None if layer is None else layer.weight)
        bias = None if layer is None else layer.bias
        has_bias = agree(ranks, Words("SparseLinear.from_rank"), notes=(int(bias is not None),))
        sharded = cls(A, bool(has_bias[source, 0, 0]), dtype=weight.dtype)
        with torch.no_grad():
            sharded.weight.copy_(weight)
            if sharded.bias is not None:
                share = None if bias is None else bias.detach().split(sizes_of(A.row_starts))
                sharded.bias.copy_(
                    scatter(
                        ranks,
                        source,
                        None if share is None else share.__getitem__,
                        weight.dtype,
                        sizes_of(A.row_starts),
                        "SparseLinear.from_rank",
                    )
                )
        return sharded

    def parts(self) -> dict[str, tuple[int, ...]]:
        """Name the parameters, and where those of each rank begin."""
        parts = {"weight": self.A.entry_starts}
        return parts if self.bias is None else parts | {"bias": self.A.row_starts}

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights and bias anew, as :meth:`spgrad.nn.SparseLinear.reset_parameters` does.

        >>> import torch, spgrad
        >>> A = spgrad.distributed.RowSharded.from_rank(torch.ones(2, 16).to_sparse_csr())
        >>> layer = spgrad.distributed.SparseLinear(A)
        >>> layer.reset_parameters(torch.Generator().manual_seed(0))
        >>> bool(layer.weight.abs().max() <= 1 / 4)
        True

        Args:
            generator: Source of the random numbers of this rank; PyTorch's default one if None.

        Raises:
            RuntimeError: ``generator`` is on another device than ``A``.

        """
        ranks, plan = self.A._built.ranks, self.A._built.plan  # noqa: SLF001
        fan_in, _ = plan.indices()
        of_each, bound = uniform_bounds(fan_in, self.A.nnz, self.weight.dtype)
        with torch.no_grad():
            for parameter, bounds in ((self.weight, of_each), (self.bias, bound)):
                if parameter is not None:
                    parameter.uniform_(-1, 1, generator=generator).mul_(bounds)
                    ranks.from_first_column(parameter, "SparseLinear")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch.nn uses
        """Apply the layer to the last dimension of the input."""
        return self.A._outside_of_graphs(self._outputs, input)  # noqa: SLF001

    def _outputs(self, input: Tensor) -> Tensor:  # noqa: A002
        is_dense = isinstance(input, Tensor) and not input.is_nested
        if not is_dense or input.layout != torch.strided or input.dim() == 0:
            return self.A.mm(self.weight, input)  # which tells all ranks what is wrong
        samples = input.flatten(0, -2) if input.dim() > 1 else input.unsqueeze(0)
        output = self.A.mm(self.weight, samples.T).T.contiguous()
        if self.bias is not None:
            # Under autocast, the bias joins the lower precision, as torch.nn.Linear has it.
            bias = self.bias.to(output.dtype)
            output = output + _autograd.copies(self.A._built.ranks, bias)  # noqa: SLF001
        return output.view(*input.shape[:-1], output.shape[-1])

    def extra_repr(self) -> str:
        """Name the sizes, and show the matrix."""
        out_features, in_features = self.A.shape
        return (
            f"in_features={in_features}, out_features={out_features}, "
            f"bias={self.bias is not None}, {self.A!r}"
        )


def _whole(layer: object, ranks: int) -> Whole:
    """Give the places of the weights of a layer, on the rank that has it."""
    if not isinstance(layer, WholeLinear):
        message = (
            "layer must be a spgrad.nn.SparseLinear on rank src, "
            f"but received {type(layer).__name__}"
        )
        raise ValueError(message)  # noqa: TRY004 - as the products do
    weights = torch.sparse_csr_tensor(
        layer.crow_indices,
        layer.col_indices,
        layer.weight.detach(),
        (layer.out_features, layer.in_features),
        check_invariants=False,
    )
    return Whole.of(weights, None, None, ranks)
