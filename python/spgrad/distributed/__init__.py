"""Products of matrices that lie on several machines, by ``torch.distributed``.

``RowSharded`` is a sparse matrix whose rows are shared out to ranks; its products move only the
rows of the dense operand that other ranks need. ``partition`` finds an order of rows that needs
few. The guide tells when this is worth it, and what it costs.
"""

from spgrad.distributed import _dtensor_rules  # noqa: F401 - registers them
from spgrad.distributed._data_parallel import data_parallel, sharded_parameters
from spgrad.distributed._files import save
from spgrad.distributed._modules import ShardedValues, SparseLinear
from spgrad.distributed._partition import partition
from spgrad.distributed._report import Report
from spgrad.distributed._row_sharded import RowSharded
from spgrad.distributed._training_state import TrainingState

__all__ = [
    "Report",
    "RowSharded",
    "ShardedValues",
    "SparseLinear",
    "TrainingState",
    "data_parallel",
    "partition",
    "save",
    "sharded_parameters",
]
