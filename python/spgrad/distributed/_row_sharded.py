"""A sparse matrix whose rows are shared out to ranks."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from spgrad._arguments import integer_from
from spgrad.distributed import _autograd, _construction
from spgrad.distributed._agreement import DTYPES, Words, agree
from spgrad.distributed._operands import NAMES_OF_DTYPES, wrong_pair, wrong_with
from spgrad.distributed._ranks import Ranks
from spgrad.distributed._report import Report
from spgrad.distributed._scatter import Whole
from spgrad.distributed._structure import Rows, chunk_starts, sizes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch.distributed.device_mesh import DeviceMesh

    from spgrad.distributed._construction import Built


class RowSharded:
    """A sparse matrix whose rows are shared out to ranks, with gradients that stay where they are.

    Each rank has some rows of A, the same rows of C, and some rows of B. A product moves the rows
    of B that other ranks' entries need (the halo) and nothing else; the backward pass moves as many
    back. :meth:`from_local`, :meth:`from_rank` and :meth:`from_file` make one.

    >>> import torch, spgrad
    >>> A = spgrad.distributed.RowSharded.from_local(
    ...     torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2]), (2, 3)
    ... )
    >>> A
    RowSharded(shape=(2, 3), rank 0 of 1: 2 rows, 3 entries, 0 rows of halo)
    >>> values = torch.nn.Parameter(torch.tensor([2.0, 3.0, 4.0]))
    >>> A.mm(values, torch.eye(3)).sum().backward()
    >>> values.grad
    tensor([1., 1., 1.])

    All ranks of the mesh call the same methods in the same order, and go the same way through
    backward passes. Each call compares a few words between ranks before rows travel, so that ranks
    that disagree, and errors of one, are the same error on all. Without a mesh there is one rank.

    Args:
        built: What the constructors hand over; use those.

    Raises:
        TypeError: It is made without one of the constructors.

    """

    def __init__(self, built: Built) -> None:
        """Take over what a constructor has built."""
        if not isinstance(built, _construction.Built):
            message = (
                "RowSharded must be made by from_local, from_rank or from_file, "
                f"but received {type(built).__name__}"
            )
            raise TypeError(message)
        self._built = built
        self._sharded = _autograd.Sharded(built.ranks, built.layout.number, built.plan)

    @classmethod
    def from_local(  # noqa: PLR0913 - with their names
        cls,
        crow_indices: Tensor,
        col_indices: Tensor,
        shape: Sequence[int],
        mesh: DeviceMesh | None = None,
        *,
        own_columns: int | None = None,
        max_halo_bytes: int | None = None,
    ) -> RowSharded:
        """Make a matrix of the rows that each rank has.

        >>> import torch, spgrad
        >>> crow_indices, col_indices = torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2])
        >>> spgrad.distributed.RowSharded.from_local(crow_indices, col_indices, (2, 3)).nnz
        3

        Args:
            crow_indices: Shape ``(rows + 1,)``, int32 or int64: where each of this rank's rows
                starts, beginning with 0. Ranks may have different numbers of rows, and none.
            col_indices: Shape ``(nnz,)``, int32 or int64: columns in the whole matrix, in
                ``[0, m)``, in any order within a row; repeated ones add up.
            shape: ``(n, m)`` of the whole matrix.
            mesh: ``DeviceMesh``, or None: this process alone, on the device of the indices. Ranks
                along its first dimension share out rows. Those along the second, where there is
                one, share out the columns of B; they have the same rows of A and the same values,
                and get the same gradient of them.
            own_columns: Rows of B that this rank has. By default as many as rows of A where n = m,
                else those of ``torch.chunk``.
            max_halo_bytes: Of the rows of B that are received at a time, those of one rank at
                least; the halo comes in rounds then, and is fetched again for the gradient of
                ``values``. None: all at once.

        Returns:
            The matrix, with copies of the indices.

        Raises:
            ValueError: An argument is no tensor, shapes do not fit on some rank or all together, or
                the mesh has more than two dimensions.
            RuntimeError: Indices of a rank are malformed, of another dtype or on another device
                than the mesh; or ranks disagree.

        """
        return cls(
            _construction.from_local(
                Ranks(mesh, crow_indices),
                lambda: Rows.of(crow_indices, col_indices, shape, own_columns),
                max_halo_bytes,
                "RowSharded.from_local",
            )
        )

    @classmethod
    def from_rank(  # noqa: PLR0913 - with their names
        cls,
        A: Tensor | None,
        src: int = 0,
        mesh: DeviceMesh | None = None,
        *,
        permutation: Tensor | None = None,
        row_starts: Sequence[int] | None = None,
        max_halo_bytes: int | None = None,
    ) -> RowSharded:
        """Share out the rows of a sparse tensor that one rank has, in pieces of bounded size.

        >>> import torch, spgrad
        >>> A = torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]]).to_sparse_csr()
        >>> sharded = spgrad.distributed.RowSharded.from_rank(A)
        >>> sharded.local(A.values())
        tensor([2., 3., 4.])

        Args:
            A: Sparse CSR tensor of shape ``(n, m)``, on rank ``src``; None on the others.
                Only the positions matter. It is kept for :meth:`local`.
            src: The rank in the mesh that has it; where the mesh has two dimensions, the first of
                these ranks.
            mesh: As :meth:`from_local` takes it.
            permutation: On rank ``src``: int32 or int64 of shape ``(n,)``, for n = m. Row and
                column i of the sharded matrix are row and column ``permutation[i]`` of A, as
                :func:`spgrad.distributed.partition` has it.
            row_starts: On rank ``src``: where the rows of each rank begin, and n. By default as
                ``torch.chunk`` and DTensor have it.
            max_halo_bytes: As :meth:`from_local` takes it.

        Returns:
            The matrix.

        Raises:
            ValueError: ``A`` is no sparse CSR tensor of two dimensions on rank ``src``, or
                ``permutation`` or ``row_starts`` do not fit.
            RuntimeError: Its indices are malformed, or ranks disagree.

        """
        ranks = Ranks(mesh, A)
        return cls(
            _construction.from_rank(
                ranks,
                lambda: Whole.of(A, permutation, row_starts, ranks.size),
                src,
                max_halo_bytes,
            )
        )

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        mesh: DeviceMesh | None = None,
        *,
        max_halo_bytes: int | None = None,
    ) -> RowSharded:
        """Let each rank read its own rows of a folder that ``spgrad.distributed.save`` has written.

        >>> import tempfile, torch, spgrad
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     spgrad.distributed.save(folder, torch.eye(3).to_sparse_csr())
        ...     spgrad.distributed.RowSharded.from_file(folder)
        RowSharded(shape=(3, 3), rank 0 of 1: 3 rows, 3 entries, 0 rows of halo)

        Args:
            path: The folder, which all ranks can read.
            mesh: As :meth:`from_local` takes it, or None: this process alone, on the CPU.
            max_halo_bytes: As :meth:`from_local` takes it.

        Returns:
            The matrix. :meth:`local` without an argument reads the values.

        Raises:
            ValueError: ``path`` is no such folder on some rank.
            RuntimeError: Indices are malformed, or ranks disagree.
            ImportError: There is no NumPy.

        """
        return cls(_construction.from_file(Ranks(mesh), path, max_halo_bytes))

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        name: str,
        mesh: DeviceMesh | None = None,
        *,
        row_starts: Sequence[int] | None = None,
        max_halo_bytes: int | None = None,
    ) -> RowSharded:
        """Let each rank read its own rows of a checkpoint, which any number of ranks has saved.

        >>> import tempfile, torch, torch.distributed.checkpoint as dcp, spgrad
        >>> store = torch.distributed.HashStore()
        >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        >>> A = spgrad.distributed.RowSharded.from_rank(torch.eye(3).to_sparse_csr())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = dcp.save({"A": A}, checkpoint_id=folder)
        ...     spgrad.distributed.RowSharded.from_checkpoint(folder, "A")
        RowSharded(shape=(3, 3), rank 0 of 1: 3 rows, 3 entries, 0 rows of halo)
        >>> torch.distributed.destroy_process_group()

        The checkpoint has the structure only. Values are those of a model:
        :class:`spgrad.distributed.TrainingState` saves and loads them.

        Args:
            path: The folder of ``torch.distributed.checkpoint``, which all ranks can read.
            name: What the matrix is called in it.
            mesh: As :meth:`from_local` takes it, or None: this process alone, on the CPU.
            row_starts: Where the rows of each rank begin, and n, the same on all ranks. By default
                as they were saved where there are as many ranks, else as ``torch.chunk`` has it.
            max_halo_bytes: As :meth:`from_local` takes it.

        Returns:
            The matrix.

        Raises:
            ValueError: ``path`` is no checkpoint with such a matrix, or ``row_starts`` does not
                fit.
            RuntimeError: Indices are malformed, ranks disagree, or PyTorch is older than 2.15.

        """
        return cls(
            _construction.from_checkpoint(Ranks(mesh), path, name, row_starts, max_halo_bytes)
        )

    @property
    def shape(self) -> torch.Size:
        """Shape ``(n, m)`` of the whole matrix."""
        return torch.Size(self._built.shape)

    @property
    def nnz(self) -> int:
        """Number of this rank's entries."""
        return self._built.plan.entries

    @property
    def rank(self) -> int:
        """Number of this rank in the mesh."""
        return self._built.ranks.rank

    @property
    def device(self) -> torch.device:
        """The device of this rank in the mesh."""
        return self._built.ranks.device

    @property
    def halo_rows(self) -> int:
        """Rows of B that this rank receives in a product."""
        return self._built.plan.halo_rows

    @property
    def row_starts(self) -> tuple[int, ...]:
        """Where the rows of A and C of each rank begin, and n."""
        return self._built.layout.row_starts

    @property
    def column_starts(self) -> tuple[int, ...]:
        """Where the rows of B of each rank begin, and m."""
        return self._built.layout.column_starts

    @property
    def entry_starts(self) -> tuple[int, ...]:
        """Where the entries of each rank begin among those of all, and their number."""
        return self._built.layout.entry_starts

    def local(self, values: Tensor | None = None) -> Tensor:
        """Give this rank's part of the values of all entries.

        >>> import torch, spgrad
        >>> A = torch.eye(3).to_sparse_csr()
        >>> spgrad.distributed.RowSharded.from_rank(A).local(torch.tensor([1.0, 2.0, 3.0]))
        tensor([1., 2., 3.])

        Args:
            values: After :meth:`from_local` and :meth:`from_file`: a value for each entry of the
                whole matrix, in the order of rows, on every rank. After :meth:`from_rank`: on rank
                ``src``, in the order of A's entries there; None on the others. After
                :meth:`from_file`, None everywhere: those of the file.

        Returns:
            A new tensor of shape ``(nnz,)`` on the mesh's device, in the order of this rank's
            entries.

        Raises:
            ValueError: ``values`` is no tensor, or has another shape than it must, on some rank.
            RuntimeError: It has a dtype that is not supported, or ranks disagree.

        """
        return _construction.local_values(self._built, values)

    def mm(self, values: Tensor, B: Tensor) -> Tensor:
        """Multiply the matrix with these values by a dense one.

        >>> import torch, spgrad
        >>> A = spgrad.distributed.RowSharded.from_rank(torch.eye(2).to_sparse_csr())
        >>> A.mm(torch.tensor([2.0, 3.0]), torch.ones(2, 2))
        tensor([[2., 2.],
                [3., 3.]])

        Args:
            values: This rank's values, of shape ``(nnz,)`` and any dtype that
                :func:`spgrad.sparse_mm` takes.
            B: This rank's rows of the dense matrix, of shape ``(rows, p)``; or all of it, as a
                ``DTensor`` with placement ``Shard(0)`` on the mesh, where all ranks have rows as
                ``torch.chunk`` has it. Dtype and device are those of ``values``. On a mesh of two
                dimensions, some columns of these rows; or a ``DTensor`` with ``Shard(0)`` and
                ``Shard(1)``.

        Returns:
            This rank's rows of the product, or a ``DTensor`` that is sharded as B where B is one.
            They have the bits that one rank computes (the guide has the exceptions). The gradient
            of ``values`` is this rank's, and the sum over the columns of B that others have; that
            of B is sharded as B.

        Raises:
            ValueError: Shapes or placements do not fit on some rank.
            RuntimeError: Dtypes or devices differ or are not supported on some rank, ranks
                disagree, or one of them did not call it within the time that the process group
                allows.
            NotImplementedError: Over several ranks under :func:`torch.func.vmap`,
                ``is_grads_batched`` or :func:`torch.export.export`.

        """
        return self._outside_of_graphs(self._mm, values, B)

    def _mm(self, values: Tensor, B: Tensor) -> Tensor:
        built = self._built
        if _casts(built.ranks.device_type):
            with _cast(built.ranks.device_type, values, B) as operands:
                return self._mm(*operands)
        local_B, wrong = self._local(B, "B", built.layout.column_starts)
        wrong = wrong or wrong_with(values, "values", (built.plan.entries,), self.device)
        wrong = wrong or wrong_pair(values, "values", local_B, "B")
        sharded = self._agreeing("RowSharded.mm", values, local_B, wrong)
        C, _ = _autograd.mm(sharded, _autograd.copies(built.ranks, values), local_B)
        return self._sharded_like(C, B)

    def sddmm(self, X: Tensor, Y: Tensor) -> Tensor:
        """Multiply two dense matrices, ``X @ Y.mT``, at the entries of this matrix only.

        >>> import torch, spgrad
        >>> A = spgrad.distributed.RowSharded.from_rank(torch.eye(2).to_sparse_csr())
        >>> A.sddmm(torch.tensor([[1.0], [10.0]]), torch.tensor([[1.0], [2.0]]))
        tensor([ 1., 20.])

        Args:
            X: This rank's rows of a matrix of shape ``(n, p)``, as rows of C; or a ``DTensor`` as
                :meth:`mm` takes it.
            Y: This rank's rows of a matrix of shape ``(m, p)``, as rows of B; or a ``DTensor``.

        Returns:
            The values ``X[i] · Y[j]``, without conjugation, of this rank's entries, over all
            columns of X and Y where ranks share these out. The gradients are sharded as X and Y.

        Raises:
            ValueError: As :meth:`mm`.
            RuntimeError: As :meth:`mm`.
            NotImplementedError: As :meth:`mm`.

        """
        return self._outside_of_graphs(self._sddmm, X, Y)

    def _sddmm(self, X: Tensor, Y: Tensor) -> Tensor:
        built = self._built
        if _casts(built.ranks.device_type):
            with _cast(built.ranks.device_type, X, Y) as operands:
                return self._sddmm(*operands)
        local_X, wrong = self._local(X, "X", built.layout.row_starts)
        local_Y, wrong_Y = self._local(Y, "Y", built.layout.column_starts)
        wrong = wrong or wrong_Y
        wrong = wrong or wrong_pair(local_X, "X", local_Y, "Y")
        if wrong is None and local_X.shape[1] != local_Y.shape[1]:
            wrong = ValueError(
                "X and Y must have the same number of columns, "
                f"but received {local_X.shape[1]} and {local_Y.shape[1]}"
            )
        sharded = self._agreeing("RowSharded.sddmm", local_X, local_Y, wrong)
        products, _ = _autograd.sddmm(sharded, local_X, local_Y)
        return _autograd.add_up(built.ranks, products)

    def report(self, p: int, dtype: torch.dtype = torch.float32) -> Report:
        """Tell what each rank has, and what it receives in a product with p columns.

        >>> import torch, spgrad
        >>> A = spgrad.distributed.RowSharded.from_rank(torch.eye(2).to_sparse_csr())
        >>> A.report(8).entries
        (2,)

        Args:
            p: Columns of B.
            dtype: Its dtype.

        Returns:
            A :class:`spgrad.distributed.Report`, which is printed as a table.

        Raises:
            ValueError: ``p`` is no integer of at least 0, or ``dtype`` is none that products take.
            RuntimeError: Ranks disagree.

        """
        built = self._built
        step, number = "RowSharded.report", built.layout.number
        words, wrong = Words(step, structure=number), None
        try:
            words = words._replace(width=integer_from(0, "p", p))
        except ValueError as error:
            wrong = error
        if isinstance(dtype, torch.dtype) and dtype in DTYPES:
            words = words._replace(dtype=dtype)
        else:
            wrong = wrong or ValueError(f"dtype must be {NAMES_OF_DTYPES}, but received {dtype!r}")
        notes = agree(built.ranks, words, wrong, (self.halo_rows,))[:, built.ranks.column]
        layout = built.layout
        return Report(
            rows=sizes_of(layout.row_starts),
            entries=sizes_of(layout.entry_starts),
            halo_rows=tuple(notes[:, 0].tolist()),
            row_bytes=words.width * dtype.itemsize,
        )

    def state_dict(self) -> dict[str, Any]:
        """Give the structure as ``torch.distributed.checkpoint`` saves it.

        >>> import torch, spgrad
        >>> A = spgrad.distributed.RowSharded.from_rank(torch.eye(2).to_sparse_csr())
        >>> A.state_dict()["col_indices"]
        tensor([0, 1])

        Returns:
            The shape, where rows and columns of each rank begin, the numbers of entries of this
            rank's rows and their columns: new int64 tensors, marked as parts of those of all ranks.

        Raises:
            RuntimeError: PyTorch is older than 2.15.

        """
        return _construction.saved(self._built)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See that a checkpoint has this structure; :meth:`from_checkpoint` makes another one.

        >>> import torch, spgrad
        >>> A = spgrad.distributed.RowSharded.from_rank(torch.eye(2).to_sparse_csr())
        >>> A.load_state_dict(A.state_dict())

        Args:
            state_dict: As :meth:`state_dict` gives it.

        Returns:
            Nothing.

        Raises:
            ValueError: The structure of some rank is another one.
            RuntimeError: Ranks disagree.

        """
        _construction.compare(self._built, state_dict)

    def __deepcopy__(self, _: dict[int, Any]) -> RowSharded:
        """Give the same: copies of modules share it, since nothing changes it."""
        return self

    def __copy__(self) -> RowSharded:
        """Give the same."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to pickle what is of the ranks of this process."""
        if self._built.ranks.mesh is not None:
            message = (
                "a RowSharded of a mesh cannot be pickled: save it and values by "
                "torch.distributed.checkpoint, or the state_dict() of a module for this rank alone"
            )
            raise TypeError(message)
        return self.__dict__

    def __repr__(self) -> str:
        """Name the shape and what this rank has."""
        ranks, layout = self._built.ranks, self._built.layout
        return (
            f"RowSharded(shape={tuple(self.shape)}, rank {ranks.rank} of {ranks.size}: "
            f"{sizes_of(layout.row_starts)[ranks.rank]} rows, {self.nnz} entries, "
            f"{self.halo_rows} rows of halo)"
        )

    def _outside_of_graphs(self, product: Callable[..., Tensor], *operands: Tensor) -> Tensor:
        """Let torch.compile break its graph for a product over several ranks."""
        if self._built.ranks.is_alone or "torch._dynamo" not in sys.modules:
            return product(*operands)
        if torch.compiler.is_exporting():
            message = (
                "products of a RowSharded over several ranks must be called without torch.export: "
                "export a Pattern or spgrad.nn.SparseLinear of one process"
            )
            raise NotImplementedError(message)
        outside: Tensor = torch.compiler.disable(
            product, reason="ranks exchange rows, which is outside of graphs"
        )(*operands)
        return outside

    @property
    def _placements(self) -> tuple[Shard, ...]:
        """How DTensors are sharded."""
        mesh = self._built.ranks.mesh
        return tuple(Shard(dim) for dim in range(1 if mesh is None else mesh.ndim))

    def _agreeing(
        self, step: str, first: Tensor, second: Tensor, wrong: Exception | None
    ) -> _autograd.Sharded:
        """Start to see that all ranks do the same, where nothing is wrong on this one."""
        sharded = self._sharded
        if wrong is not None:
            agree(sharded.ranks, Words(step), wrong)
        wanted = torch.is_grad_enabled()
        return sharded.agreeing(
            step, second, (wanted and first.requires_grad, wanted and second.requires_grad)
        )

    def _local(
        self, operand: Tensor, name: str, starts: tuple[int, ...]
    ) -> tuple[Tensor, Exception | None]:
        """Give this rank's rows of an operand, and what is wrong with it."""
        built = self._built
        rank = built.ranks.rank
        if isinstance(operand, DTensor):
            chunks = (chunk_starts(self.shape[0], built.ranks.size), self.row_starts)
            places = (chunk_starts(starts[-1], built.ranks.size), starts)
            placements = self._placements
            if operand.device_mesh != built.ranks.mesh or operand.placements != placements:
                wanted = " and ".join(f"Shard({placement.dim})" for placement in placements)
                message = (
                    f"{name} must have placement {wanted} on the mesh of the matrix, but received "
                    f"{tuple(operand.placements)} on {operand.device_mesh}"
                )
                return operand, ValueError(message)
            if chunks[0] != chunks[1] or places[0] != places[1]:
                message = (
                    f"{name} must be this rank's rows, since not all ranks have as many rows as "
                    "torch.chunk gives, but received a DTensor"
                )
                return operand, ValueError(message)
            operand = operand.to_local(grad_placements=placements)
        rows = starts[rank + 1] - starts[rank]
        return operand, wrong_with(operand, name, (rows, "p"), built.ranks.device)

    def _sharded_like(self, C: Tensor, B: Tensor) -> Tensor:
        if not isinstance(B, DTensor):
            return C
        shape = torch.Size((self.shape[0], B.shape[1]))
        return DTensor.from_local(
            C, B.device_mesh, self._placements, run_check=False, shape=shape, stride=(shape[1], 1)
        )


def _casts(device_type: str) -> bool:
    """Whether autocast is on for a type of device, which may have none."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


@contextmanager
def _cast(device_type: str, *operands: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cast operands as autocast casts those of torch.mm, before ranks compare dtypes.

    Without autocast within, since all parts of a product have one dtype.
    """
    dtype = torch.get_autocast_dtype(device_type)
    with torch.autocast(device_type, enabled=False):
        yield tuple(
            x.to(dtype)
            if isinstance(x, Tensor) and x.is_floating_point() and x.dtype != torch.float64
            else x
            for x in operands
        )
