"""Ranks in processes of their own: those that disagree, end early, or do what threads cannot."""

import matrices
import pytest
import torch
from ranks import on_processes, on_restarted_processes, outcomes_of

# What each of three ranks does with `rank`, a matrix A and operands of its own, and what all raise.
DISAGREEMENTS = {
    "p": ("A.mm(values, B[:, : 2 + (rank == 1)])", r"rank 1: has p = 3; rank 0: has p = 2"),
    "dtype": (
        "A.mm(values.to(wide := torch.float64 if rank == 2 else torch.float32), B.to(wide))",
        r"rank 2: has torch.float64; rank 0: has torch.float32",
    ),
    "shape": ("A.mm(values, B[: len(B) - (rank == 1)])", r"rank 1: B must be dense and have"),
    "values": ("A.mm(values[rank // 2 :], B)", r"rank 2: values must be dense and have shape"),
    "order of calls": (
        "A.sddmm(B, B) if rank == 1 else A.mm(values, B)",
        "rank 1: calls RowSharded.sddmm; rank 0: calls RowSharded.mm",
    ),
    "matrix": (
        "(other if rank == 2 else A).mm(values, B)",
        "rank 2: uses RowSharded number",
    ),
    "wanted at first": (
        "A.mm(values.detach() if rank == 1 else values, B)",
        "rank 1: wants gradients of operands [2]; rank 0: wants gradients of operands [1, 2]",
    ),
    "order of backward passes": (
        "[A.mm(values, B), A.sddmm(B, B)][rank % 2].sum().backward()",
        "rank 1: calls the backward pass of RowSharded.sddmm; rank 0: calls the backward pass of",
    ),
    "order of backward passes without rows that travel": (
        "[A.mm(values, B.detach()), A.sddmm(B, B.detach())][rank % 2].sum().backward()",
        "rank 1: calls the backward pass of RowSharded.sddmm; rank 0: calls the backward pass of",
    ),
    "structure": (
        "RowSharded.from_local(offsets, columns + 9 * (rank == 1), (9, 9), mesh)",
        "rank 1: col_indices must be in [0, 9), but received",
    ),
    "shape of the whole": (
        "RowSharded.from_local(offsets, columns, (9, 9 + (rank == 2)), mesh)",
        "rank 2: has m = 10; rank 0: has m = 9",
    ),
    "bound": (
        "RowSharded.from_local(offsets, columns, (9, 9), mesh, max_halo_bytes=8 + rank // 2)",
        "rank 2: has max_halo_bytes = 9; rank 0: has max_halo_bytes = 8",
    ),
    "a nested tensor": (
        "A.mm(values, torch.nested.nested_tensor([B]) if rank == 1 else B)",
        "rank 1: B must be dense and have shape (3, p), but received a nested one",
    ),
    "no tensor": ("A.mm(values, None if rank == 1 else B)", "rank 1: B must be a torch.Tensor"),
    "type of shape": (
        "RowSharded.from_local(offsets, columns, 9 if rank == 1 else (9, 9), mesh)",
        "rank 1: shape must be (n, m), two integers of at least 0, but received 9",
    ),
    "type of bound": (
        "RowSharded.from_local(offsets, columns, (9, 9), mesh, max_halo_bytes=8 + rank / 2)",
        "rank 0: max_halo_bytes must be an integer of at least 1, but received 8.0",
    ),
    "type of own columns": (
        "RowSharded.from_local(offsets, columns, (9, 9), mesh, own_columns='3' if rank else 3)",
        "rank 1: own_columns must be an integer of at least 0, but received '3'",
    ),
    "type of source": (
        "RowSharded.from_rank(torch.eye(3).to_sparse_csr(), rank / 2, mesh)",
        "rank 0: src must be an integer in [0, 3), but received 0.0",
    ),
    "type of row_starts": (
        "RowSharded.from_rank(torch.eye(3).to_sparse_csr(), 0, mesh, row_starts=3)",
        "rank 0: row_starts must be integers, of each rank and n, but received 3",
    ),
    "type of p": (
        "A.report('3' if rank == 1 else 3)",
        "rank 1: p must be an integer of at least 0, but received '3'",
    ),
    "dtype of report": ("A.report(3, torch.int8 if rank == 2 else torch.half)", "rank 2: dtype m"),
    "type of state": (
        "A.load_state_dict({} if rank == 1 else state)",
        "rank 1: state_dict must be what state_dict() gives, but received: KeyError",
    ),
    "source": ("RowSharded.from_rank(torch.eye(3).to_sparse_csr(), rank // 2, mesh)", "same src"),
}

DISAGREE = """
offsets, columns = torch.tensor([0, 2, 4, 6]), torch.arange(6) + rank
A = RowSharded.from_local(offsets, columns, (9, 9), mesh)
other = RowSharded.from_local(offsets, columns, (9, 9), mesh)
state = {"shape": (9, 9), "row_counts": offsets.diff(), "col_indices": columns}
said = {}
for name, (call, _) in arguments[0].items():
    values, B = (torch.ones(size, requires_grad=True) for size in ((6,), (3, 4)))
    torch.distributed.barrier()
    start = time.monotonic()
    try:
        eval(call)
    except (ValueError, RuntimeError) as error:
        said[name] = [str(error), time.monotonic() - start]
C = A.mm(torch.ones(6), torch.ones(3, 4))  # all is well afterwards
outcome = said, C.sum().item()
"""


def test_ranks_that_disagree_raise_the_same_within_a_second(tmp_path):
    for said, total in outcomes_of(3, DISAGREE, tmp_path, DISAGREEMENTS):
        assert total == 24
        for name, (_, text) in DISAGREEMENTS.items():
            assert name in said, f"{name}: no error"
            message, seconds = said[name]
            assert text in message
            assert seconds < 1


# Forward mode counts its levels for all threads of a process together: ranks as threads cannot.
WORK = """
def same(parts, expected):
    gathered = [None] * size
    torch.distributed.all_gather_object(gathered, parts.detach())
    assert torch.equal(torch.cat(gathered), expected)

matrix = matrices.random(30, 26, 200)
given = matrices.operands(matrix, 4)
A = matrices.share(mesh, matrix)
mine = matrices.of_rank(A, given)
expected = matrices.derivatives_of_dense(matrix, given)
for result, other in zip(matrices.derivatives(A.mm, A.sddmm, mine), expected):
    same(result, other)

mm = lambda values, B: matrix.dense(values) @ B
both = torch.func.jvp(A.mm, (mine.values, mine.B), (mine.of_values, mine.of_B))[1]
same(both, mm(given.of_values, given.B) + mm(given.values, given.of_B))
def gradients_of_squares(mm):
    return torch.func.grad(lambda values, B: mm(values, B).square().sum(), (0, 1))
of_rank = (mine.values, mine.B), (mine.of_values, mine.of_B)
of_all = (given.values, given.B), (given.of_values, given.of_B)
second = torch.func.jvp(gradients_of_squares(A.mm), *of_rank)[1]
for part, whole in zip(second, torch.func.jvp(gradients_of_squares(mm), *of_all)[1]):
    same(part, whole)
def gradients_of_sum(mm, X):
    return torch.func.grad(lambda values, B: (mm(values, B) * X).sum(), (0, 1))
for one in (0, 1):  # operand that the forward derivative is by
    def by_one(gradients, operands, tangents):
        def of(operand):
            return gradients(*operands[:one], operand, *operands[one + 1 :])
        return torch.func.jvp(of, (operands[one],), (tangents[one],))[1]
    second = by_one(gradients_of_sum(A.mm, mine.X), *of_rank)
    for part, whole in zip(second, by_one(gradients_of_sum(mm, given.X), *of_all)):
        same(part, whole)
sampled = torch.func.jvp(lambda Y: A.sddmm(mine.X, Y), (mine.B,), (mine.of_B,))[1]
same(sampled, matrices.derivatives_of_dense(matrix, given._replace(B=given.of_B))[6])

B = distribute_tensor(given.B, mesh, [Shard(0)]).requires_grad_()
values = mine.values.clone().requires_grad_()
C = A.mm(values, B)
assert isinstance(C, DTensor) and C.placements == (Shard(0),) and C.shape == (30, 4)
assert torch.equal(C.full_tensor(), expected[0])
C.backward(distribute_tensor(given.X, mesh, [Shard(0)]))
same(values.grad, expected[1])
assert B.grad.placements == (Shard(0),) and torch.equal(B.grad.full_tensor(), expected[2])
X = distribute_tensor(given.X, mesh, [Shard(0)])
same(A.sddmm(X, B), expected[6])
with torch.autocast("cpu", torch.bfloat16):
    C = A.mm(values.float(), B.float())
assert isinstance(C, DTensor)
same(C.to_local(), expected[0].bfloat16())

for placement in (Replicate(), Shard(1)):
    try:
        A.mm(values, distribute_tensor(given.B, mesh, [placement]))
    except ValueError as error:
        assert "rank 0: B must have placement Shard(0)" in str(error)
    else:
        raise AssertionError
"""


def test_processes_do_what_threads_do_and_forward_mode_and_dtensors(tmp_path):
    outcomes_of(3, WORK, tmp_path)


TRANSFORMS = """
import pickle
matrix = matrices.random(30, 26, 200)
given = matrices.operands(matrix, 4)
A = matrices.share(mesh, matrix)
mine = matrices.of_rank(A, given)
compiled = torch.compile(lambda values, B: A.mm(values, 2 * B) + 1, backend="eager")
values = mine.values.clone().requires_grad_()
C = compiled(values, mine.B)
C.backward(mine.X)
assert torch.equal(C, 2 * A.mm(mine.values, mine.B) + 1)
assert torch.equal(values.grad, 2 * A.sddmm(mine.X, mine.B))

columns = torch.distributed.device_mesh.init_device_mesh("cpu", (1, 2))
of_columns = RowSharded.from_local(matrix.crow_indices, matrix.col_indices, (30, 26), columns)
layer = spgrad.distributed.SparseLinear(of_columns, dtype=given.B.dtype)
output = torch.compile(layer, backend="eager")(given.B.mT)
output.sum().backward()
assert torch.equal(output, layer(given.B.mT))
assert torch.equal(layer.bias.grad, torch.full_like(layer.bias, 8))  # of 4 samples on each rank

values = mine.values.clone().requires_grad_()
product, grads = A.mm(values, mine.B), torch.ones(2, *C.shape, dtype=C.dtype)
outcome = []
for call in (
    lambda: torch.func.vmap(A.mm, (None, 0))(mine.values, mine.B[None]),
    lambda: torch.func.vmap(of_columns.mm, (0, None))(torch.ones(1, 200), torch.ones(26, 2)),
    lambda: torch.autograd.grad(product, values, grads, is_grads_batched=True),
    lambda: torch.export.export(layer, (given.B.mT,)),
    lambda: torch.export.export(layer, (given.B.mT,), strict=True),
    lambda: pickle.dumps(spgrad.distributed.ShardedValues(A, mine.values)),
):
    try:
        call()
    except Exception as error:
        outcome.append(str(error))
A.mm(mine.values, mine.B)
"""


def test_a_compiled_function_has_products_and_what_cannot_be_says_so(tmp_path):
    mapped, exported = ["torch.func.vmap and is_grads_batched"] * 3, ["torch.export"] * 2
    for *texts, pickled in outcomes_of(2, TRANSFORMS, tmp_path):
        for text, tool in zip(texts, mapped + exported, strict=True):
            assert f"RowSharded over several ranks must be called without {tool}" in text
        assert "a RowSharded of a mesh cannot be pickled" in pickled


BREAK_OFF = """
A = RowSharded.from_local(torch.tensor([0, 2]), torch.tensor([0, 1]), (2, 2), mesh)
A.mm(torch.ones(2), torch.ones(1, 4))
if rank == 1:
    os._exit(3)
start = time.monotonic()
try:
    A.mm(torch.ones(2), torch.ones(1, 4))
except RuntimeError as error:
    assert "RowSharded.mm could not exchange rows with the other ranks" in str(error)
    outcome = time.monotonic() - start
"""


def test_a_rank_that_ends_is_an_error_of_the_others_that_names_the_product(tmp_path):
    (_, succeeded, seconds), (status, *_) = on_processes(2, BREAK_OFF, tmp_path)
    assert succeeded, seconds
    assert status == 3
    assert seconds < 10


# Both ranks have as many entries of the grid: DistributedDataParallel sees no difference.
DATA_PARALLEL = """
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from spgrad.distributed import ShardedValues, data_parallel, sharded_parameters

matrix = matrices.grid(6)
given = matrices.operands(matrix, 4, matrices.floats)
A = matrices.share(mesh, matrix)
mine = matrices.of_rank(A, given)
same = lambda a, b: torch.allclose(a, b, rtol=1e-4, atol=1e-4)

class Network(nn.Module):
    def __init__(self, product):
        super().__init__()
        torch.manual_seed(0)
        self.product, self.linear = product, nn.Linear(4, 4)
    def forward(self, x):
        return self.product(self.linear(x))

values = given.values.clone().requires_grad_()
whole = Network(lambda B: matrix.dense(values) @ B)
C = whole(given.B)
C.backward(given.X)
weight, (begin, end) = whole.linear.weight.grad, A.entry_starts[rank : rank + 2]

def step(model, network):
    C = model(mine.B)
    C.backward(mine.X)
    return C.detach(), network.product.values.grad, network.linear.weight.grad

make = lambda: Network(ShardedValues(A, mine.values))
C_of_rank = matrices.pieces(A.row_starts, C.detach())[rank]

network = make()
assert sharded_parameters(network) == {network.product.values}
results = step(data_parallel(network), network)
assert same(results[0], C_of_rank) and same(results[1], values.grad[begin:end])
assert same(results[2], weight)
names = dict(spgrad.distributed.TrainingState(data_parallel(network)).state_dict()["model"])
assert names["product.values"].global_shape == (matrix.nnz,)

network = make()
fully_shard(network, mesh=mesh, ignored_params=sharded_parameters(network))
network.set_gradient_divide_factor(1.0)
network.set_force_sum_reduction_for_comms(True)
results = step(network, network)
assert same(results[0], C_of_rank) and same(results[1], values.grad[begin:end])
assert same(results[2].full_tensor(), weight)

# What they do where nobody tells them.
network = make()
C, of_values, _ = step(DistributedDataParallel(network), network)
taken = network.product.values.detach()
others = matrices.pieces(A.entry_starts, given.values)
assert torch.equal(taken, others[0])
assert same(C, C_of_rank) == (rank == 0)  # of rank 1, with values of rank 0
assert not same(of_values, values.grad[begin:end])

network = make()
fully_shard(network, mesh=mesh)
half = len(others[0]) // 2
assert torch.equal(
    network.product.values.full_tensor(), torch.cat([others[0][:half], others[1][half:]])
)

uneven = matrices.share(mesh, matrix, row_starts=[0, 10, 36])

class Root(ShardedValues):
    def __init__(self):
        super().__init__(uneven, matrices.pieces(uneven.entry_starts, given.values)[rank])
        self.scale = nn.Parameter(torch.ones(4))
    def forward(self, B):
        return super().forward(B) * self.scale

model = data_parallel(Root())
mine = matrices.of_rank(uneven, given)
model(mine.B).backward(mine.X)
product = matrix.dense(given.values) @ given.B
assert same(model.module.scale.grad, (product * given.X).sum(0))
"""


def test_data_parallelism_leaves_the_parts_of_ranks_alone(tmp_path):
    outcomes_of(2, DATA_PARALLEL, tmp_path)


RESTART = """
from pathlib import Path
from spgrad.distributed import ShardedValues, TrainingState

folder, steps = arguments
saved = sorted(int(path.parent.name) for path in Path(folder).glob("*/.metadata"))
matrix = matrices.random(26, 26, 150)
given = matrices.operands(matrix, 3, matrices.floats, dtype=torch.float64)
if saved:
    A = RowSharded.from_checkpoint(f"{folder}/{saved[-1]}", "A", mesh)
else:
    A = matrices.share(mesh, matrix)
mine = matrices.of_rank(A, given)
model = ShardedValues(A, torch.zeros(A.nnz).double() if saved else mine.values)
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
state = {"A": A, "training": TrainingState(model, optimizer)}
if saved:
    dcp.load(state, checkpoint_id=f"{folder}/{saved[-1]}")
first = saved[-1] if saved else 0
for step in range(first, steps):
    if step == 2 and rank == 1 and not int(os.environ["TORCHELASTIC_RESTART_COUNT"]):
        os.kill(os.getpid(), 9)
    optimizer.zero_grad()
    (model(mine.B) - mine.X).square().sum().backward()
    optimizer.step()
    dcp.save(state, checkpoint_id=f"{folder}/{step + 1}")
outcome = first, model.values.tolist()
"""


def test_ranks_that_torchrun_starts_again_go_on_from_the_last_checkpoint(tmp_path):
    pytest.importorskip("torch.distributed.checkpoint.protocol", reason="needs PyTorch 2.15")
    steps = 4
    first, parts = zip(*on_restarted_processes(2, 1, RESTART, str(tmp_path), steps), strict=True)
    assert first == (2, 2)
    matrix = matrices.random(26, 26, 150)
    values, B, X, *_ = matrices.operands(matrix, 3, matrices.floats, dtype=torch.float64)
    values.requires_grad_()
    optimizer = torch.optim.Adam([values], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        (matrix.dense(values) @ B - X).square().sum().backward()
        optimizer.step()
    together = torch.cat([torch.tensor(part, dtype=torch.float64) for part in parts])
    assert torch.allclose(together, values, rtol=1e-12)


COLUMNS = """
from torch.distributed.device_mesh import init_device_mesh
import torch.autograd.forward_ad as fwAD
mesh = init_device_mesh("cpu", (1, 2))
matrix, given = arguments
A = RowSharded.from_local(matrix.crow_indices, matrix.col_indices, matrix.shape, mesh)
mine = matrices.Operands(
    *(part if part.dim() == 1 else part[:, 2 * rank : 2 * rank + 2] for part in given)
)
with fwAD.dual_level():
    duals = [fwAD.make_dual(mine.values, mine.of_values), fwAD.make_dual(mine.B, mine.of_B)]
    tangent_of_C = fwAD.unpack_dual(A.mm(*duals)).tangent
    X = fwAD.make_dual(mine.X, 2 * mine.X)
    tangent_of_d = fwAD.unpack_dual(A.sddmm(X, duals[1])).tangent
values = torch.rand(A.nnz, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
(A.mm(values, mine.B / 3) / 7).square().sum().backward()
outcome = [tensor.tolist() for tensor in (tangent_of_C, tangent_of_d, values.grad)]
B = mine.B.clone().requires_grad_()
results = A.mm(mine.values, B), A.sddmm(mine.X, B)
try:
    results[rank].sum().backward()  # without rows that travel
except RuntimeError as error:
    outcome.append(str(error))
"""


def test_ranks_with_columns_have_forward_mode_the_same_bits_in_copies_and_errors(tmp_path):
    matrix = matrices.MATRICES["random"]
    given = matrices.operands(matrix, 4)
    (first_C, d, grad, error), (second_C, other_d, other_grad, other_error) = outcomes_of(
        2, COLUMNS, tmp_path, matrix, given
    )
    C = matrix.dense(given.of_values) @ given.B + matrix.dense(given.values) @ given.of_B
    assert [one + other for one, other in zip(first_C, second_C, strict=True)] == C.tolist()
    rows = torch.repeat_interleave(torch.arange(50), matrix.crow_indices.diff())
    products = 2 * given.X @ given.B.mT + given.X @ given.of_B.mT
    assert d == other_d == products[rows, matrix.col_indices].tolist()
    assert grad == other_grad
    said = "rank (0, 1): calls the backward pass of RowSharded.sddmm; rank (0, 0): calls"
    assert said in error
    assert said in other_error


MANY = """
from spgrad.distributed import _ranks
_ranks._MOST_IN_A_RING = 1  # as if there were more
ranks = _ranks.Ranks(mesh)
gathered = ranks.all_gather(torch.tensor([rank, 10 + rank]), "the test").tolist()
A = RowSharded.from_local(torch.tensor([0, 1]), torch.tensor([rank]), (size, size), mesh)
try:
    A.mm(torch.ones(1), torch.ones(1, 2 + (rank == 1)))
except RuntimeError as error:
    said = str(error)
outcome = gathered, said, A.mm(torch.ones(1), torch.full((1, 1), 7.0)).item()
"""


@pytest.mark.parametrize("size", [2, 5])
def test_words_of_many_ranks_travel_in_few_steps(tmp_path, size):
    for gathered, said, product in outcomes_of(size, MANY, tmp_path):
        assert gathered == [[rank, 10 + rank] for rank in range(size)]
        assert "rank 1: has p = 3; rank 0: has p = 2" in said
        assert product == 7


WORDS = """
from spgrad.distributed._ranks import Ranks
ranks = Ranks(mesh)
ranks.device = torch.device("meta")  # as if it were a device whose tensors gloo cannot send
outcome = [
    ranks.all_gather(torch.tensor([rank, 7]), "the test").tolist(),
    ranks.largest(torch.tensor([rank, 7]), "the test").tolist(),
]
"""


def test_words_of_ranks_on_a_device_travel_on_the_cpu_where_a_backend_takes_them(tmp_path):
    assert outcomes_of(2, WORDS, tmp_path) == [[[[0, 7], [1, 7]], [1, 7]]] * 2
