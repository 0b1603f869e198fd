"""A matrix on disk, of which each rank reads its own rows."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spgrad._arguments import refuse_others_than_tensors
from spgrad._optional import optional
from spgrad.distributed._agreement import DTYPES
from spgrad.distributed._structure import checked_shape

_FORMAT = 1
_NAMES = ("crow_indices", "col_indices", "values")
_BY_NAME = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}


# They are Python literals, which CPython 3.11 cannot parse in several threads at a time (its issue
# 106905), as ranks of one process would.
_ONE_READS_HEADERS = threading.Lock()


def _numpy() -> Any:
    return optional("numpy", "files of spgrad.distributed need", "numpy")


def save(path: str | Path, A: Tensor) -> None:
    """Write a sparse CSR tensor to a folder that :meth:`RowSharded.from_file` reads.

    >>> import tempfile, torch, spgrad
    >>> A = torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]]).to_sparse_csr()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     spgrad.distributed.save(folder, A)
    ...     sharded = spgrad.distributed.RowSharded.from_file(folder)
    ...     values = sharded.local()
    >>> values
    tensor([2., 3., 4.])

    The folder has ``crow_indices.npy``, ``col_indices.npy`` and ``values.npy``, in the format of
    NumPy, which is needed for it, and ``matrix.json`` with the shape. bfloat16, which NumPy lacks,
    is kept as int16.

    Args:
        path: The folder, which is made where it is missing; what it has of these files is replaced.
        A: Sparse CSR tensor of shape ``(n, m)``, of any dtype that :func:`spgrad.sparse_mm` takes.

    Returns:
        Nothing.

    Raises:
        ValueError: ``A`` is no sparse CSR tensor of two dimensions, or of another dtype.
        ImportError: There is no NumPy.
        OSError: The folder cannot be written to.

    """
    refuse_others_than_tensors(A=A)
    if A.layout != torch.sparse_csr or A.dim() != 2 or A.dtype not in DTYPES:  # noqa: PLR2004
        message = (
            "A must be a sparse CSR tensor of shape (n, m) with float or complex values, "
            f"but received {A.layout} of shape {tuple(A.shape)} and {A.dtype}"
        )
        raise ValueError(message)
    np = _numpy()
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    values = A.values().detach()
    stored = values.view(torch.int16) if values.dtype == torch.bfloat16 else values
    for name, tensor in zip(_NAMES, (A.crow_indices(), A.col_indices(), stored), strict=True):
        np.save(folder / f"{name}.npy", tensor.resolve_conj().cpu().numpy())
    about = {
        "format": _FORMAT,
        "shape": list(A.shape),
        "values": str(A.dtype).removeprefix("torch."),
    }
    (folder / "matrix.json").write_text(json.dumps(about) + "\n")


class Folder:
    """A folder that `save` has written, opened without reading it."""

    def __init__(self, path: str | Path) -> None:
        """Map the files into memory.

        Raises:
            ValueError: It is no such folder.
            ImportError: There is no NumPy.

        """
        np = _numpy()
        try:
            folder = Path(path)
            about = json.loads((folder / "matrix.json").read_text())
            self.shape = checked_shape(about["shape"])
            self.dtype = _BY_NAME[about["values"]]
            with _ONE_READS_HEADERS:
                arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in _NAMES]
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            message = (
                "path must be a folder that spgrad.distributed.save has written, "
                f"but received {path!r}: {error}"
            )
            raise ValueError(message) from error
        if about.get("format") != _FORMAT:
            message = f"format must be {_FORMAT}, but received {about.get('format')!r} in {path!r}"
            raise ValueError(message)
        self._crow_indices, self._col_indices, self._values = arrays
        self._check_arrays(np)

    def _check_arrays(self, np: Any) -> None:
        """See that the arrays are of one matrix, without reading them: each rank has a part.

        Raises:
            ValueError: They are not.

        """
        n, _ = self.shape
        stored = torch.int16 if self.dtype == torch.bfloat16 else self.dtype
        of_values = (torch.empty(0, dtype=stored).numpy().dtype,)
        of_indices = np.dtype(np.int32), np.dtype(np.int64)
        _check_array("crow_indices", self._crow_indices, n + 1, of_indices)
        first, entries = int(self._crow_indices[0]), int(self._crow_indices[-1])
        if first != 0:
            message = f"crow_indices.npy must begin with 0, but received {first}"
            raise ValueError(message)
        _check_array("col_indices", self._col_indices, entries, of_indices)
        _check_array("values", self._values, entries, of_values)

    def rows(self, first_row: int, last_row: int) -> tuple[Tensor, Tensor]:
        """Read offsets and columns of these rows."""
        offsets = _read(self._crow_indices, first_row, last_row + 1)
        begin, end = int(offsets[0]), int(offsets[-1])
        return offsets - begin, _read(self._col_indices, begin, end)

    def values(self, begin: int, end: int) -> Tensor:
        """Read the values of these entries."""
        return _read(self._values, begin, end).view(self.dtype)


def _read(array: Any, begin: int, end: int) -> Tensor:
    return torch.from_numpy(array[begin:end].copy())


def _check_array(name: str, array: Any, length: int, dtypes: tuple[Any, ...]) -> None:
    if array.shape != (length,) or array.dtype not in dtypes:
        message = (
            f"{name}.npy must be {' or '.join(map(str, dtypes))} of shape {(length,)}, "
            f"but received {array.dtype} of shape {array.shape}"
        )
        raise ValueError(message)
