"""Reads Matrix Market files."""

from pathlib import Path

import scipy.io
import scipy.sparse

from demo.problem import Problem


def read(path: Path) -> Problem:
    """Read a real, integer or pattern matrix of any symmetry; entries of a pattern count as 1."""
    if not path.is_file():
        message = f"there is no file {path}"
        raise SystemExit(message)
    try:
        rows, columns, _, _, field, symmetry = scipy.io.mminfo(path)
        if field == "complex":
            message = f"{path} is complex: the demo takes real, integer and pattern matrices"
            raise SystemExit(message)
        matrix = scipy.sparse.csr_array(scipy.io.mmread(path))
    except OSError as error:
        message = f"cannot read {path}: {error.strerror or error}"
        raise SystemExit(message) from error
    except (ValueError, OverflowError) as error:
        message = f"{path} is not a valid Matrix Market file: {error}"
        raise SystemExit(message) from error
    return Problem(f"{path.name}, {field} {symmetry}, {rows:,} × {columns:,}", matrix)
