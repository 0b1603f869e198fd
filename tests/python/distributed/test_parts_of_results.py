"""The operators that write results, or parts of them, into a tensor that they are given."""

import oracle
import pytest
import torch
from torch.autograd import forward_ad

import spgrad

N, M, P = 20, 15, 6
WHOLE = ((N, M, 90), 0, None)
UNTOUCHED = 77.0
COMPOSITE = torch._C.DispatchKey.CompositeExplicitAutograd

mm_into = torch.ops.spgrad.pattern_mm_into.default
sddmm_into = torch.ops.spgrad.pattern_sddmm_into.default
mm_backward_into = torch.ops.spgrad.pattern_mm_backward_into.default


def into(name, *arguments, key=None):
    operator = getattr(torch.ops.spgrad, f"pattern_{name}_into").default
    return operator(*arguments) if key is None else operator._op_dk(key, *arguments)


def structure_of(A, index_dtype=torch.int32):
    """List the tensors and the size that operators take."""
    pattern = spgrad.Pattern(A)
    return *(tensor.to(index_dtype) for tensor in pattern._tensors), pattern.shape


def matrix(kind="csr64", dtype=torch.float32, size=(N, M), nnz=90):
    return oracle.make_sparse(kind, size, nnz, dtype=dtype)


def values_of(A):
    return A.values() if A.layout == torch.sparse_csr else A._values()


def multiply(A, C, runs=(0, N), *, B=None, index_dtype=torch.int32, whole=WHOLE, key=None):
    B = oracle.dense_for(A, P) if B is None else B
    structure = structure_of(A, index_dtype)
    into("mm", *structure, values_of(A), B, *whole, list(runs), C, key=key)


def rows_of(runs):
    """List the rows of C that runs have, in order."""
    return [
        row for begin, end in zip(runs[::2], runs[1::2], strict=True) for row in range(begin, end)
    ]


@pytest.mark.parametrize("key", [None, COMPOSITE], ids=["kernels", "composite"])
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("kind", ["csr64", "uncoalesced"])
def test_runs_of_rows_are_written_and_no_other_row(kind, dtype, index_dtype, key):
    A = matrix(kind, dtype)
    expected = (oracle.exact(A.to_dense()) @ oracle.exact(oracle.dense_for(A, P))).to(dtype)
    for runs in [
        (0, N),
        (3, N + 3),
        (0, 7, 7, N),
        (1, 4, 4, 4, 6, N + 3),
        (0, 0, 2, 12, 15, N + 5),
    ]:
        for columns in (slice(2, P + 2), slice(None)):  # some, then all columns of wider memory
            wide = torch.full((N + 5, P + 5 if columns.start else P), UNTOUCHED, dtype=dtype)
            multiply(A, wide[:, columns], runs, index_dtype=index_dtype, key=key)
            others = torch.ones(wide.shape, dtype=torch.bool)
            others[rows_of(runs), columns] = False
            assert (wide[others] == UNTOUCHED).all()
            assert torch.equal(wide[rows_of(runs), columns], expected)


@pytest.mark.parametrize("p", [1, 3, 130])
def test_long_rows_are_written_where_their_runs_are(p, set_threads):
    # Rows 1 and 3 have several blocks of entries.
    counts = torch.tensor([3, 9000, 5, 5000, 0, 7])
    generator = oracle.seeded(0)
    columns = torch.randint(50, (int(counts.sum()),), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    A = torch.sparse_csr_tensor(offsets, columns, oracle.integers(len(columns)), (6, 50))
    B = oracle.integers(50, p)
    expected = (
        torch.zeros(6, p)
        .double()
        .index_add(
            0, torch.repeat_interleave(torch.arange(6), counts), A.values().view(-1, 1) * B[columns]
        )
    )
    for threads in (1, 4):
        set_threads(threads)
        for runs in [(0, 6), (0, 1, 2, 7), (0, 2, 3, 4, 5, 8), (1, 4, 5, 8), (0, 5, 7, 8)]:
            C = torch.full((8, p), UNTOUCHED).double()
            multiply(A, C, runs, B=B, whole=((6, 50, len(columns)), 0, None))
            assert torch.equal(C[rows_of(runs)], expected)
            assert ((C == UNTOUCHED).all(1).sum()) == 2


def test_memory_may_begin_anywhere():
    A, B = matrix(), oracle.integers(M, 32)
    memory = torch.full((N * 32 + 2,), UNTOUCHED)
    multiply(A, memory[1:-1].view(N, 32), B=B.float())
    assert torch.equal(memory[1:-1].view(N, 32), (oracle.exact(A.to_dense()) @ B).float())
    assert memory[0] == memory[-1] == UNTOUCHED


def test_no_columns_leave_nothing_to_write():
    A = matrix()
    multiply(A, torch.empty(N, 0), B=torch.empty(M, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda C: C[:, :5], r"shape \(rows, 6\), but received \[20, 5\]"),
        (lambda C: C.flatten(), r"shape \(rows, 6\)"),
        (lambda C: C[0, 0], "contiguous columns"),
        (lambda _: torch.zeros(P, N).T, r"contiguous columns .*strides \[1, 20\]"),
        (lambda _: torch.zeros(N, 2 * P)[:, ::2], r"contiguous columns .*\[12, 2\]"),
        (lambda _: torch.zeros(1, P).expand(N, P), r"memory of their.*\[0, 1\]"),
        (lambda _: torch.zeros(99).as_strided((N, P), (3, 1)), r"of their own.*\[3, 1\]"),
        (lambda C: C.double(), "dtype of the operands, .*Float, but received .*Double"),
    ],
)
def test_what_is_not_written_into_is_refused(change, message):
    with pytest.raises((ValueError, RuntimeError, NotImplementedError), match=message):
        multiply(matrix(), change(torch.zeros(N, P)))


@pytest.mark.parametrize("key", [None, COMPOSITE], ids=["kernels", "composite"])
@pytest.mark.parametrize(
    "runs",
    [
        (),
        (0, N - 1),
        (0, N, N, N + 1),
        (-1, N - 1),
        (1, N + 1, N + 4, N + 3),
        (0, 12, 10, N - 2),  # they overlap
        (N, 0),
        (10, N + 6, 0, 4),
        (10, N + 10),
        (0, 4, 8),
        (-(2**63), 2**63 - 1),
    ],
)
def test_runs_have_a_place_for_each_row_once(runs, key):
    C = torch.full((N + 5, P), UNTOUCHED)
    with pytest.raises(
        ValueError, match=r"runs must .* with 20 of the 25 rows of C in all, but received"
    ) as error:
        multiply(matrix(), C, runs, key=key)
    assert str(list(runs)) in str(error.value)
    assert (C == UNTOUCHED).all()


def test_a_result_must_share_no_memory_with_operands():
    A = matrix()
    memory = torch.ones(N + M, P)
    with pytest.raises(RuntimeError, match="must have memory of its own"):
        multiply(A, memory[M - 1 :], B=memory[:M])
    multiply(A, memory[M:], B=memory[:M])
    assert torch.equal(memory[M:], A.to_dense() @ torch.ones(M, P))
    structure, X, Y = structure_of(A), torch.ones(N, P), torch.ones(M, P)
    with pytest.raises(RuntimeError, match="must have memory of its own"):
        sddmm_into(*structure, X, Y, X.view(-1)[:90])
    values = values_of(A)
    with pytest.raises(RuntimeError, match="must have memory of its own"):
        mm_backward_into(*structure, values, Y, X, values)
    wide = torch.ones(N + 1, P + 5)
    with pytest.raises(RuntimeError, match="must have memory of its own"):
        multiply(A, wide[1:, 1 : P + 1], B=wide[:M, :P])


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("lazy", [torch.Tensor.conj, torch._neg_view])
def test_operands_have_lazy_bits_and_results_have_none(lazy, inference):
    A = matrix(dtype=torch.complex64)
    structure, values = structure_of(A), values_of(A).clone()
    X, B = (torch.randn(rows, P, dtype=torch.complex64) for rows in (N, M))
    C, numbers = torch.zeros(N, P, dtype=torch.complex64), torch.zeros_like(values)
    with torch.inference_mode(inference):
        mm_into(*structure, lazy(values), lazy(B), *WHOLE, [0, N], C)
        dense = torch.sparse_csr_tensor(
            A.crow_indices(), A.col_indices(), lazy(values).resolve_conj().resolve_neg(), A.shape
        )
        torch.testing.assert_close(C, dense.to_dense() @ lazy(B))
        calls = (
            lambda: mm_into(*structure, values, B, *WHOLE, [0, N], lazy(C)),
            lambda: sddmm_into(*structure, X, B, lazy(numbers)),
            lambda: mm_backward_into(*structure, values, B, X, lazy(numbers)),
        )
        for call in calls:
            with pytest.raises(RuntimeError, match="conjugate or negative bit is set"):
                call()


@pytest.mark.parametrize(
    ("place", "spoil"),
    [
        (0, lambda offsets: offsets.index_fill(0, torch.tensor([3]), 2**30)),
        (0, lambda offsets: offsets.index_fill(0, torch.tensor([3]), -5)),
        (0, lambda offsets: offsets + 1),
        (1, lambda entries: entries.index_fill(0, torch.tensor([40]), M)),
        (1, lambda entries: entries.index_fill(0, torch.tensor([40]), -1)),
        (1, lambda entries: torch.stack([entries, torch.full_like(entries, 90)], 1)),
        (1, lambda entries: torch.stack([entries, torch.full_like(entries, -1)], 1)),
    ],
)
def test_malformed_structures_are_refused(place, spoil):
    A = matrix()
    structure = list(structure_of(A))
    structure[place] = spoil(structure[place])
    values, B, grad = values_of(A), oracle.dense_for(A, P), oracle.output_gradient_for(A, P)
    message = "row_offsets, row_entries, column_offsets and column_entries must be those"
    for runs in ([0, N], [0, 7, 9, N + 2]):
        with pytest.raises(RuntimeError, match=message):
            mm_into(*structure, values, B, *WHOLE, runs, torch.empty(N + 2, P))
    with pytest.raises(RuntimeError, match=message):
        sddmm_into(*structure, grad, B, torch.empty(90))
    transposed = [*structure[2:4], *structure[:2], (M, N)]
    with pytest.raises(RuntimeError, match=message):
        mm_backward_into(*transposed, values, grad, B, torch.empty(90))


@pytest.mark.parametrize("key", [None, COMPOSITE], ids=["kernels", "composite"])
@pytest.mark.parametrize("p", [1, P, 0])
@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("kind", ["csr64", "uncoalesced"])
def test_numbers_of_entries_are_written_into_a_part(kind, dtype, p, key):
    A = matrix(kind, dtype)
    structure, values = structure_of(A), values_of(A)
    X, Y = oracle.output_gradient_for(A, p), oracle.dense_for(A, p)
    memory = torch.full((len(values) + 2,), UNTOUCHED, dtype=dtype)
    part = memory[1:-1]
    rows, columns = oracle.positions_of(A)
    x, y = oracle.exact(X), oracle.exact(Y)

    assert into("sddmm", *structure, X, Y, part, key=key) is None
    assert torch.equal(part, (x[rows] * y[columns]).sum(1).to(dtype))

    part.fill_(UNTOUCHED)
    grad_B = into("mm_backward", *structure, values, Y, X, part, key=key)
    assert torch.equal(part, (x[rows] * y[columns].conj()).sum(1).to(dtype))
    assert torch.equal(grad_B, (oracle.exact(A.to_dense()).mH @ x).to(dtype))
    assert memory[0] == memory[-1] == UNTOUCHED


@pytest.mark.parametrize("key", [None, COMPOSITE], ids=["kernels", "composite"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda into: into[:-1], r"one element for each entry, shape \[90\], .*received \[89\]"),
        (lambda into: into.view(1, -1), r"shape \[90\], but received \[1, 90\]"),
        (lambda into: into.double(), "dtype of the operands"),
        (lambda into: into[:1].expand(90), r"strides \[0\]"),
        (lambda _: torch.zeros(180)[::2], r"strides \[2\]"),
        (lambda into: into.to_sparse(), "received layout Sparse"),
    ],
)
def test_numbers_of_entries_have_a_place_for_each(change, message, key):
    A = matrix()
    numbers = change(torch.zeros(90))
    structure, B, grad = structure_of(A), oracle.dense_for(A), oracle.output_gradient_for(A)
    with pytest.raises((ValueError, RuntimeError), match="products must .*" + message):
        into("sddmm", *structure, grad, B, numbers, key=key)
    with pytest.raises((ValueError, RuntimeError), match="grad_values must .*" + message):
        into("mm_backward", *structure, values_of(A), B, grad, numbers, key=key)


def test_parts_are_of_one_matrix_without_heads():
    A = matrix()
    structure, values = structure_of(A), values_of(A)
    B, grad = oracle.dense_for(A, P), oracle.output_gradient_for(A, P)
    heads, numbers = torch.stack([B, B]), torch.zeros(90)
    message = "dense operands have two dimensions"
    with pytest.raises(ValueError, match=message):
        multiply(A, torch.zeros(N, P), B=heads)
    with pytest.raises(ValueError, match=message):
        sddmm_into(*structure, grad, heads, numbers)
    with pytest.raises(ValueError, match=message):
        mm_backward_into(*structure, values, heads, grad, numbers)
    for call in (
        lambda: mm_into(*structure, values.view(1, -1), B, *WHOLE, [0, N], torch.zeros(N, P)),
        lambda: mm_backward_into(*structure, values.view(1, -1), B, grad, numbers),
    ):
        with pytest.raises(ValueError, match=r"values must have one dimension, .*\[1, 90\]"):
            call()


def test_parts_take_no_gradients_and_are_changes_in_place():
    A = matrix()
    structure, values = structure_of(A), values_of(A)
    B, grad, C = oracle.dense_for(A, P), oracle.output_gradient_for(A, P), torch.zeros(N, P)
    numbers = torch.zeros(90)
    calls = {
        "mm_into": lambda *operands: mm_into(*structure, *operands[:2], *WHOLE, [0, N], C),
        "sddmm_into": lambda *operands: sddmm_into(*structure, operands[2], B, numbers),
        "mm_backward_into": lambda *operands: mm_backward_into(*structure, *operands, numbers),
    }
    operands = values, B, grad
    for name, call in calls.items():
        with pytest.raises(NotImplementedError, match=f"pattern_{name} takes tensors without"):
            call(*(operand.clone().requires_grad_() for operand in operands))
        with torch.no_grad():
            call(*(operand.clone().requires_grad_() for operand in operands))
    written = C.requires_grad_()
    with pytest.raises(NotImplementedError, match="pattern_mm_into takes tensors without"):
        mm_into(*structure, values, B, *WHOLE, [0, N], written)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(B, torch.ones_like(B))
        with pytest.raises(NotImplementedError, match="have tangents"):
            mm_into(*structure, values, dual, *WHOLE, [0, N], torch.zeros(N, P))


@pytest.mark.parametrize("inference", [False, True])
def test_a_tensor_that_was_saved_and_then_written_into_is_noticed(inference):
    A = matrix()
    kept = torch.ones(N, P)
    loss = (torch.ones(N, P, requires_grad=True) * kept).sum()
    with pytest.raises(ValueError, match="runs must"):
        multiply(A, kept, (0, N + 1))
    assert kept._version == 0
    with torch.inference_mode(inference):
        multiply(A, kept)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        (((N, M), 0, None), r"must have \(n, m, nnz\) .*received \[20, 15\]"),
        (((N, -1, 90), 0, None), r"received \[20, -1, 90\]"),
        (((N, 2**63 - 1, 90), 0, None), r"must have \(n, m, nnz\)"),
        (((N, M, 90), -1, None), "and -1"),
        (((N, M, 90), 0, torch.arange(M - 1)), "each of 15 columns, .* of size .14"),
        (((N, M, 90), 0, torch.arange(float(M))), "int64 vector .*received Float"),
        (((N, M, 90), 0, torch.arange(2 * M)[::2]), "contiguous int64"),
        (((N, M, 90), 1, torch.arange(M)), "must be 0 .*received 1"),
    ],
)
def test_rows_of_a_larger_matrix_have_its_sizes(whole, message):
    with pytest.raises(ValueError, match=message):
        multiply(matrix(), torch.zeros(N, P), whole=whole)


def test_sizes_that_no_matrix_has_are_no_hang():
    A = torch.eye(2).to_sparse_csr()
    B = torch.rand(2, 64)
    for numbers in (None, torch.tensor([0, 2**60])):
        C = torch.zeros(2, 64)
        multiply(A, C, (0, 2), B=B, whole=((16, 2**61, 2**62 - 1), 0, numbers))
        assert torch.equal(C, B)


def test_large_memory_has_the_size_and_dtype_asked_for():
    for dtype in oracle.DTYPES:
        for size in ([], [0], [3, 5], [2048, 1024]):
            memory = torch.ops.spgrad.empty_large(size, dtype)
            assert memory.dtype == dtype
            assert list(memory.shape) == size
            assert memory.is_contiguous()
    for size in ([-1], [3, -2], [2**62, 4]):
        with pytest.raises(RuntimeError, match=r"negative|overflow"):
            torch.ops.spgrad.empty_large(size, torch.float32)
