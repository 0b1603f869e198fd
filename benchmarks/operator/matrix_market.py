"""Reads Matrix Market files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.io
import scipy.sparse

from benchmarks.operator.problem import NamedMatrix

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path) -> NamedMatrix:
    """Read a real, integer or pattern matrix of any symmetry; entries of a pattern count as 1."""
    if not path.is_file():
        message = f"there is no file {path}"
        raise SystemExit(message)
    try:
        rows, columns, _, _, field, symmetry = scipy.io.mminfo(path)
        if field == "complex":
            message = f"{path} is complex: the benchmark takes real, integer and pattern matrices"
            raise SystemExit(message)
        matrix = scipy.sparse.csr_array(scipy.io.mmread(path))
    except OSError as error:
        message = f"cannot read {path}: {error.strerror or error}"
        raise SystemExit(message) from error
    except (ValueError, OverflowError) as error:
        message = f"{path} is not a valid Matrix Market file: {error}"
        raise SystemExit(message) from error
    with np.errstate(over="ignore"):
        finite = np.isfinite(matrix.data.astype(np.float32)).all()
    if not finite:
        message = f"{path}: some entries are not finite in float32"
        raise SystemExit(message)
    return NamedMatrix(f"{path.name}, {field} {symmetry}, {rows:,} × {columns:,}", matrix)
