"""A structure that is prepared once: its products, its independence and its checks."""

import copy
import itertools
import math
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import malformed
import pytest
import torch
from cases import (
    ALL_KINDS,
    BOTH_FORMS,
    BOTH_SIZES,
    EMPTY,
    LARGE,
    LAYOUTS,
    RESTRIDES,
    SIZES,
)
from copies import pickled, through_a_file
from forms import (
    PRODUCTS,
    Operators,
    all_results,
    assert_right,
    fill,
    function_of,
    operands_for,
)
from oracle import (
    BATCHED,
    DTYPES,
    KINDS,
    PLAIN,
    assert_dense,
    dense_for,
    exact,
    integers,
    is_csr,
    make_sparse,
    output_gradient_for,
    positions_of,
    to_dense,
    values_of,
)
from pairs import pairwise
from profiles import allocated
from torch import ones
from torch.autograd import gradcheck, gradgradcheck

import spgrad

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),  # torch's forward mode
]


SHAPES = {"plain": (PLAIN, 8, 3), "batched": (BATCHED, 24, 3), **EMPTY}


@pairwise(kind=KINDS, shape=SHAPES, dtype=DTYPES)
def test_the_product_and_its_gradients_are_right(kind, shape, dtype):
    size, entries, p = SHAPES[shape]
    A = make_sparse(kind, size, entries, dtype=dtype)
    assert_right(spgrad.Pattern(A).mm, A, operands_for(A, p))


@SIZES
@ALL_KINDS
def test_a_pattern_tells_its_shape_and_that_of_the_values(kind, size):
    A = make_sparse(kind, size)
    pattern = spgrad.Pattern(A)
    assert (pattern.shape, pattern.values_shape) == (A.shape, values_of(A).shape)
    assert (pattern.nnz, pattern.device) == (values_of(A).numel(), A.device)
    assert repr(pattern) == f"Pattern(shape={size}, nnz={pattern.nnz})"


def test_values_and_their_gradient_are_in_the_order_of_unsorted_entries_with_duplicates():
    A = torch.sparse_coo_tensor([[1, 0, 1, 1], [0, 1, 0, 1]], torch.zeros(4), (2, 2))
    values = torch.tensor([3.0, 2.0, 4.0, 5.0], requires_grad=True)
    C = spgrad.Pattern(A).mm(values, torch.tensor([[1.0], [10.0]]))
    assert torch.equal(C, torch.tensor([[20.0], [57.0]]))
    C.backward(torch.tensor([[5.0], [100.0]]))
    assert values.grad.tolist() == [100.0, 50.0, 100.0, 1000.0]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float16, torch.complex64])
def test_a_matrix_of_any_dtype_has_a_pattern(dtype):
    pattern = spgrad.Pattern(torch.eye(3).to(dtype).to_sparse())
    assert torch.equal(pattern.mm(torch.arange(3.0), torch.eye(3)), torch.arange(3.0).diag())


@pairwise(kind=KINDS, size=BOTH_SIZES.values(), restride=RESTRIDES)
def test_operands_may_have_any_strides(kind, size, restride):
    A = make_sparse(kind, size)
    values, B, G = operands_for(A)
    values = restride(values.reshape(-1, values.shape[-1])).view(values.shape)
    values_of(A).copy_(values)
    assert_right(spgrad.Pattern(A).mm, A, (values, restride(B), restride(G)))


@SIZES
@ALL_KINDS
def test_a_change_of_the_indices_in_place_does_not_reach_the_pattern(kind, size):
    def indices():
        return (A.crow_indices(), A.col_indices()) if is_csr(kind) else (A._indices(),)

    A, same = make_sparse(kind, size), make_sparse(kind, size)
    pattern = spgrad.Pattern(A)
    for tensor in indices():
        tensor.zero_()
    assert not any(tensor.any() for tensor in indices())
    assert_right(pattern.mm, same)


@ALL_KINDS
def test_a_pattern_made_in_inference_mode_can_be_trained_with(kind):
    with torch.inference_mode():
        A = make_sparse(kind, PLAIN)
        pattern = spgrad.Pattern(A)
    assert_right(pattern.mm, make_sparse(kind, PLAIN))


def loaded_without_trust(pattern):
    return through_a_file(pattern, weights_only=True)


@pairwise(
    kind=KINDS,
    size=BOTH_SIZES.values(),
    copied=(copy.copy, copy.deepcopy, pickled, loaded_without_trust),
)
def test_copies_give_the_same_products(kind, size, copied):
    A = make_sparse(kind, size)
    pattern = spgrad.Pattern(A)
    other = copied(pattern)
    assert other is not pattern
    assert (other.shape, other.values_shape) == (pattern.shape, pattern.values_shape)
    assert_right(other.mm, A)


@SIZES
@ALL_KINDS
def test_a_pattern_goes_to_its_own_device_as_itself_and_to_meta_without_numbers(kind, size):
    A = make_sparse(kind, size, dtype=torch.float32)
    pattern = spgrad.Pattern(A)
    assert pattern.to(A.device) is pattern
    meta = pattern.to("meta")
    values, B = (x.to("meta").requires_grad_() for x in operands_for(A)[:2])
    C = meta.mm(values, B)
    C.sum().backward()
    assert meta.device == C.device == torch.device("meta")
    assert (C.shape, C.dtype) == ((*size[:-1], 3), torch.float32)
    assert (values.grad.shape, B.grad.shape) == (values.shape, B.shape)


@pytest.mark.parametrize("place", [None, torch.float64, "nowhere"])
def test_a_pattern_goes_to_devices_only(place):
    with pytest.raises((TypeError, RuntimeError)):
        spgrad.Pattern(make_sparse("csr32", PLAIN)).to(place)


@pytest.mark.parametrize(("values", "B"), [([1.0], torch.ones(5, 1)), (torch.ones(8), None)])
def test_operands_that_are_no_tensors_are_refused(values, B):
    with pytest.raises(ValueError, match=r"instances of torch\.Tensor"):
        spgrad.Pattern(make_sparse("csr32", PLAIN)).mm(values, B)


@pytest.mark.parametrize("name", ["shape", "values_shape", "nnz", "device", "anything"])
def test_nothing_of_a_pattern_can_be_set(name):
    pattern = spgrad.Pattern(make_sparse("csr64", PLAIN))
    with pytest.raises(AttributeError):
        setattr(pattern, name, None)


@BOTH_FORMS
def test_threads_may_use_a_pattern_at_the_same_time(kind):
    A = make_sparse(kind, (500, 400), 60_000)
    pattern = spgrad.Pattern(A)
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(assert_right, pattern.mm, A, operands_for(A, p)) for p in range(12)]
    for task in tasks:
        task.result()


SHARED = {**LARGE, "batched, long rows": ((2, 2, 10_000), 30_000)}


@pytest.mark.of_kernels
@pairwise(kind=LAYOUTS, shape=SHARED, dtype=DTYPES)
def test_results_have_the_bits_of_the_plain_products(set_threads, kind, shape, dtype):
    A = make_sparse(kind, *SHARED[shape], dtype=dtype)
    operands = operands_for(A, 20)
    fill(torch.randn, *operands)
    expected = all_results(function_of(A), *operands)
    for threads in (1, 2):
        set_threads(threads)
        results = all_results(spgrad.Pattern(A).mm, *operands)
        assert all(map(torch.equal, results, expected))


def bytes_made_by_backward(multiply, values, B, G):
    """Count the bytes of all tensors that the backward pass makes."""
    C = multiply(values.requires_grad_(), B.requires_grad_())
    sizes = allocated(lambda: torch.autograd.grad(C, (values, B), G))
    return sum(size for size in sizes if size > 0)


@pytest.mark.of_kernels
@ALL_KINDS
def test_backward_sorts_nothing_and_makes_its_results_only(kind):
    A = make_sparse(kind, (100, 90), 3000)
    values, B, G = operands_for(A, p=20)
    results = values.nbytes + B.nbytes
    assert bytes_made_by_backward(spgrad.Pattern(A).mm, values, B, G) == results
    of_plain = bytes_made_by_backward(function_of(A), values, B, G)
    assert of_plain >= results + 8 * values.numel()  # a sorted copy: the measurement works
    values, B, G = operands_for(A)  # by rows
    made = bytes_made_by_backward(spgrad.Pattern(A).mm, values, B, G)
    assert made <= values.nbytes + B.nbytes + 2 * values.numel()


@SIZES
@BOTH_FORMS
def test_a_module_learns_and_leaves_its_pattern_as_it_is(kind, size):
    A, goal = make_sparse(kind, size), integers(*size, seed=9)
    layer = torch.nn.Module()
    layer.pattern, layer.values = spgrad.Pattern(A), torch.nn.Parameter(values_of(A).clone())
    assert list(layer.state_dict()) == ["values"]
    before = [tensor.clone() for tensor in layer.pattern._tensors]
    identity = torch.eye(size[-1]).double().expand(*size[:-2], -1, -1)
    optimizer, losses = torch.optim.SGD(layer.parameters(), lr=0.1), []
    for _ in range(5):
        optimizer.zero_grad()
        losses.append((layer.pattern.mm(layer.values, identity) - goal).pow(2).sum())
        losses[-1].backward()
        optimizer.step()
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))
    assert all(map(torch.equal, layer.pattern._tensors, before))


CROW, COL = torch.tensor([0, 1, 1, 2, 3]), torch.tensor([1, 0, 2])


def made_from_tensors(A):
    """Make the pattern of a matrix of its plain tensors."""
    if A.layout == torch.sparse_coo:
        return spgrad.Pattern.from_coo(A._indices(), A.shape)
    return spgrad.Pattern.from_csr(A.crow_indices(), A.col_indices(), A.shape)


@pairwise(kind=KINDS, shape=SHAPES, dtype=(torch.float64, torch.bfloat16))
def test_a_pattern_of_plain_tensors_is_that_of_the_sparse_one(kind, shape, dtype):
    size, entries, p = SHAPES[shape]
    A = make_sparse(kind, size, entries, dtype=dtype)
    pattern, same = made_from_tensors(A), spgrad.Pattern(A)
    assert (pattern.shape, pattern.values_shape) == (same.shape, same.values_shape)
    assert all(map(torch.equal, pattern._tensors, same._tensors))
    assert_right(pattern.mm, A, operands_for(A, p))


@pairwise(kind=KINDS, shape=SHAPES, transposed=(False, True))
def test_the_indices_are_those_of_the_entries_in_the_order_of_the_values(kind, shape, transposed):
    size, entries, _ = SHAPES[shape]
    A = make_sparse(kind, size, entries)
    pattern, expected = spgrad.Pattern(A), torch.stack(positions_of(A))
    if transposed:
        pattern, expected = pattern.T, torch.cat([expected[:-2], expected[-2:].flip(0)])
    indices = pattern.indices()
    assert indices.dtype == torch.int64
    assert torch.equal(indices, expected)
    assert pattern.to("meta").indices().shape == indices.shape


def of_transposed(A, values, B, *, by):
    """Multiply the transposed matrix, in one of the ways to do so."""
    pattern = spgrad.Pattern(A)
    return pattern.T.mm(values, B) if by == "T" else pattern.mm_transposed(values, B)


@pairwise(kind=KINDS, shape=SHAPES, dtype=DTYPES, by=("T", "mm_transposed"))
def test_the_transposed_product_and_its_gradients_are_right(kind, shape, dtype, by):
    size, entries, p = SHAPES[shape]
    A = make_sparse(kind, size, entries, dtype=dtype)
    values, B, G = operands_for(A, p)  # with G in the place of B
    for wanted in ("vG", "v", "G"):
        v = values.detach().requires_grad_("v" in wanted)
        X = G.detach().requires_grad_("G" in wanted)
        C = of_transposed(A, v, X, by=by)
        assert C.is_contiguous()
        assert_dense(C, to_dense(A).mT @ exact(X))
        C.backward(B)
        if "v" in wanted:
            products = (exact(X).conj() @ exact(B).mT)[positions_of(A)]
            assert_dense(v.grad, products.reshape(v.shape))
        if "G" in wanted:
            assert_dense(X.grad, to_dense(A).conj() @ exact(B))


@SIZES
@ALL_KINDS
def test_a_transposed_pattern_shares_all_memory_and_is_a_pattern_like_others(kind, size):
    A = make_sparse(kind, size)
    pattern = spgrad.Pattern(A)
    other = pickled(pattern.T)
    *batch, n, m = size
    assert pattern.T.shape == other.shape == (*batch, m, n)
    assert {x.data_ptr() for x in pattern.T._tensors} == {x.data_ptr() for x in pattern._tensors}
    assert_right(other.T.mm, A)
    B, X = dense_for(A), output_gradient_for(A)
    assert torch.equal(other.sddmm(B, X), pattern.sddmm(X, B))
    f = other.mm
    inputs = [x.requires_grad_() for x in (values_of(A).clone(), X)]
    assert gradcheck(f, inputs, check_forward_ad=True)
    assert gradgradcheck(f, inputs)


@pytest.mark.of_kernels
@BOTH_FORMS
def test_a_transposed_pattern_gives_the_bits_of_the_transposed_product(set_threads, kind):
    A = make_sparse(kind, *LARGE["long columns"], dtype=torch.float32)
    values, X = values_of(A).clone(), output_gradient_for(A, 20)
    fill(torch.randn, values, X)
    pattern = spgrad.Pattern(A)
    for threads in (1, 2):
        set_threads(threads)
        assert torch.equal(pattern.T.mm(values, X), pattern.mm_transposed(values, X))


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        ("csr", ([0], CROW, (4, 5)), ValueError, "crow_indices must be a torch.Tensor, but receiv"),
        ("csr", (CROW, [0], (4, 5)), ValueError, "col_indices must be a torch.Tensor, but receive"),
        (
            "csr",
            (CROW, COL, (3, 5)),
            ValueError,
            "crow_indices must have shape [4] for size [3, 5",
        ),
        ("csr", (CROW, COL, (1, 4, 5)), ValueError, "crow_indices must have shape [1, 5] for size"),
        ("csr", (CROW, COL, (5,)), ValueError, "size must be (n, m) or (b, n, m), but received [5"),
        ("csr", (CROW, COL, (4, -5)), ValueError, "size must not be negative, but received [4, -5"),
        ("csr", (CROW, COL, (4, 2)), RuntimeError, "col_indices must be in [0, 2), but received 2"),
        ("csr", (CROW, COL.short(), (4, 5)), RuntimeError, "col_indices must be int32 or int64"),
        ("csr", (CROW, COL[None], (4, 5)), ValueError, "col_indices must have shape (nnz) or"),
        ("coo", ([0], (4, 5)), ValueError, "indices must be a torch.Tensor, but received list"),
        ("coo", (COL, (4, 5)), ValueError, "indices must have shape (2, nnz) for size [4, 5]"),
        ("coo", (COL.expand(2, 3), (4, 2)), RuntimeError, "indices of columns must be in [0, 2)"),
        ("coo", (COL.expand(2, 3), ()), ValueError, "size must be (n, m) or (b, n, m)"),
    ],
)
def test_plain_tensors_that_do_not_fit_have_no_pattern(make, arguments, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        getattr(spgrad.Pattern, f"from_{make}")(*arguments)


LAYOUT = "A must be a sparse COO or CSR tensor, but received layout "
SHAPE = "A must have shape (n, m) or (b, n, m), but received "
HYBRID = "A must have only sparse dimensions, but received a hybrid tensor with 1 dense dimension"
HYBRID_CSR = torch.sparse_csr_tensor([0, 1, 2], [0, 1], ones(2, 3), (2, 2, 3))


@pytest.mark.parametrize(
    ("A", "message"),
    [
        ([[1.0]], "A must be a torch.Tensor, but received list"),
        (ones(3, 4), LAYOUT + "Strided"),
        (HYBRID_CSR.detach().to_dense().to_sparse(2), HYBRID),
        (HYBRID_CSR, HYBRID),
        (ones(4).to_sparse(), SHAPE + "[4]"),
        (ones(2, 2, 3, 4).to_sparse(), SHAPE + "[2, 2, 3, 4]"),
        (ones(2, 2, 3, 4).to_sparse_csr(), SHAPE + "[2, 2, 3, 4]"),
        (ones(3, 4).to_sparse_csc(), LAYOUT + "SparseCsc"),
        (ones(4, 4).to_sparse_bsr((2, 2)), LAYOUT + "SparseBsr"),
        (ones(4, 4).to_sparse_bsc((2, 2)), LAYOUT + "SparseBsc"),
    ],
)
def test_what_is_no_sparse_matrix_has_no_pattern(A, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        spgrad.Pattern(A)


def test_a_csr_matrix_without_numbers_has_a_pattern_without_numbers():
    A = make_sparse("csr32", BATCHED)
    structure = (A.crow_indices(), A.col_indices())
    make = torch.ops.spgrad.csr_pattern  # A.to("meta") would forget its number of entries
    meta = make(*(x.to("meta") for x in structure), A.shape[-1])
    for ours, theirs in zip(meta, make(*structure, A.shape[-1]), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert ours.is_meta


def test_a_coo_matrix_without_numbers_has_no_pattern():
    with pytest.raises(NotImplementedError, match="order of its entries"):
        spgrad.Pattern(ones(3, 4).to_sparse().to("meta"))


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("csr", (integers(5), integers(8), 5), RuntimeError, "crow_indices must be int32 or int64"),
        ("csr", (torch.tensor(0), torch.tensor(0), 5), ValueError, "crow_indices must have shape"),
        ("csr", (torch.zeros(5).long(), torch.zeros(0).long(), -1), ValueError, "columns must not"),
        ("coo", (integers(2, 8), (4, 5)), RuntimeError, "indices must be int32 or int64"),
        ("coo", (torch.zeros(3, 8).long(), (4, 5)), ValueError, "indices must have shape (2, nnz)"),
        ("coo", (torch.zeros(2, 0).long(), (4, -5)), ValueError, "size must not be negative"),
    ],
)
def test_plain_tensors_that_are_no_structure_are_refused(name, arguments, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        getattr(torch.ops.spgrad, f"{name}_pattern")(*arguments)


def test_malformed_indices_are_refused_with_their_reason():
    for _, structure, batched, message in malformed.structures():
        size = (*(2,) * batched, malformed.ROWS, malformed.COLUMNS)
        if len(structure) == 2:
            A = torch.sparse_csr_tensor(*structure, ones(structure[1].shape), size)
        else:
            A = torch.sparse_coo_tensor(*structure, ones(structure[0].shape[1]), size)
        with pytest.raises(RuntimeError, match=re.escape(message)):
            spgrad.Pattern(A)


@pytest.mark.parametrize(
    ("size", "values", "B", "error", "message"),
    [
        (
            PLAIN,
            ones(7),
            ones(5, 2),
            ValueError,
            "values must have shape (8,) behind any leading dimensions, but received (7,)",
        ),
        (BATCHED, ones(24), ones(3, 5, 2), ValueError, "values must have shape (3, 8) behind"),
        (BATCHED, ones(8, 3), ones(3, 5, 2), ValueError, "values must have shape (3, 8) behind"),
        (PLAIN, ones(8).to_sparse(), ones(5, 2), ValueError, "values must be a dense (strided)"),
        (PLAIN, ones(8), ones(5, 2).to_sparse(), ValueError, "B must be a dense (strided)"),
        (PLAIN, ones(8), ones(4, 2), ValueError, "B must have 5 rows, but received shape [4, 2]"),
        (PLAIN, ones(8), ones(1, 4, 2), ValueError, "B must have 5 rows, but received shape [1, 4"),
        (BATCHED, ones(3, 8), ones(5, 2), ValueError, "B must have at least 3 dim"),
        (BATCHED, ones(3, 8), ones(1, 5, 2), ValueError, "B must have the batch size"),
        (PLAIN, ones(8), ones(5, 2).double(), RuntimeError, "values and B must have the same"),
        (PLAIN, ones(8).int(), ones(5, 2).int(), RuntimeError, "values and B must be float32"),
        (PLAIN, ones(8), ones(5, 2).to("meta"), RuntimeError, "values, B and the indices must be"),
    ],
)
def test_operands_that_do_not_fit_are_refused(size, values, B, error, message):
    pattern = spgrad.Pattern(make_sparse("csr64", size))
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        pattern.mm(values, B)


def eight(kind):
    """Make an (8, 8) matrix with 8 entries, so that 8 is the bound of every index and position."""
    return make_sparse(kind, (8, 8), 6 if kind == "uncoalesced" else 8)


FAR = (2**31 - 1, -(2**31))
# Offsets or entries (0 or 1), place in them, and what no pattern has there.
HOSTILE = [(0, (place, 0), bad) for place in (0, 1, 4, -1) for bad in (-1, 9, *FAR)]
HOSTILE += [(0, (0, 0), 1), (0, (-1, 0), 7)]
HOSTILE += [(1, (place, i), bad) for place in (0, -1) for i in (0, -1) for bad in (-1, 8, *FAR)]
MADE = "must be those that csr_pattern or coo_pattern made for this size"


@pytest.mark.parametrize("name", PRODUCTS)
@BOTH_FORMS
def test_hostile_offsets_indices_and_positions_are_refused(kind, name):
    first = 0 if name in ("mm", "sddmm") else 2  # of the tensors by row and by column
    operators = Operators(eight(kind), "pattern")
    for dtype, p in itertools.product((torch.int32, torch.int64), (1, 3, 40)):
        operator, arguments = operators.with_leaves(name, p)
        for tensor, place, bad in HOSTILE:
            structure = [x.to(dtype, copy=True) for x in arguments[:4]]
            changed = structure[first + tensor]
            changed.view(len(changed), -1)[place] = bad
            with pytest.raises(RuntimeError, match=MADE):
                operator(*structure, *arguments[4:])
            if first == 0 and p == 1:
                with pytest.raises(RuntimeError, match=MADE):
                    torch.ops.spgrad.pattern_indices(*structure, (8, 8))


@pytest.mark.parametrize("name", PRODUCTS)
@BOTH_FORMS
def test_one_hostile_entry_of_a_long_row_is_refused(kind, name):
    tensor, size = (1, (3, 20_000)) if name in ("mm", "sddmm") else (3, (20_000, 3))
    operators = Operators(make_sparse(kind, size, 40_000), "pattern")
    operator, arguments = operators.with_leaves(name, p=20)  # not by rows
    for position in (9_999, -1):
        good = arguments[tensor][position].clone()
        arguments[tensor][position] = 2**31 - 1
        with pytest.raises(RuntimeError, match=MADE):
            operator(*arguments)
        arguments[tensor][position] = good
    operator(*arguments)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0), (0, 4, 4), (2, 0, 4), (2, 4, 0)])
def test_entries_without_rows_or_columns_for_them_are_refused(size, name):
    *batch, rows, columns = size
    items = math.prod(batch)
    entries = torch.zeros(3, 2, dtype=torch.int32)
    pattern = (
        torch.zeros(items * rows + 1, dtype=torch.int32),
        entries,
        torch.zeros(items * columns + 1, dtype=torch.int32),
        entries,
    )
    values, left, right = ones(3), ones(*batch, rows, 2), ones(*batch, columns, 2)
    operands = {
        "mm": (values, right),
        "mm_transposed": (values, left),
        "sddmm": (left, right),
        "mm_backward": (values, right, left),
    }
    with pytest.raises(RuntimeError, match=MADE):
        getattr(torch.ops.spgrad, f"pattern_{name}")(*pattern, size, *operands[name])


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (0, lambda x: x[1:], "row_offsets must have shape (9), but received [8]"),
        (0, lambda x: x[None], "row_offsets must have shape (9), but received [1, 9]"),
        (0, lambda x: x.double(), "row_offsets must be int32 or int64, but received Double"),
        (0, lambda x: x.long(), "row_entries must have the dtype of row_offsets, Long"),
        (0, lambda x: x.to_sparse(), "row_offsets must be a dense (strided) tensor"),
        (1, lambda x: x[1:], "column_entries must have shape (7) or (7, 2), but received [8, 2]"),
        (1, lambda x: x[:, None], "row_entries must have shape (nnz) or (nnz, 2)"),
        (1, lambda x: x.flatten()[0], "row_entries must have shape (nnz) or (nnz, 2)"),
        (2, lambda x: x[:0], "column_offsets must have shape (9), but received [0]"),
        (2, lambda x: x.short(), "column_offsets must have the dtype of row_offsets, Int"),
        (3, lambda x: x[:, :1], "column_entries must have shape (8) or (8, 2), but received [8, 1"),
        (3, lambda x: x[1:, 0], "column_entries must have shape (8) or (8, 2), but received [7]"),
        (3, lambda x: x.to("meta"), "column_entries must be on the device of row_offsets, "),
        (4, lambda _: (8,), "size must be (n, m) or (b, n, m), but received [8]"),
        (4, lambda _: (8, -8), "size must not be negative, but received [8, -8]"),
        (4, lambda _: (8, 7), "column_offsets must have shape (8), but received [9]"),
        (4, lambda _: (2, 8, 8), "row_offsets must have shape (17), but received [9]"),
    ],
)
@BOTH_FORMS
def test_tensors_that_are_no_pattern_are_refused(kind, place, change, message):
    operators = Operators(eight(kind), "pattern")
    for name in PRODUCTS:
        operator, arguments = operators.with_leaves(name)
        arguments = [*arguments[:place], change(arguments[place]), *arguments[place + 1 :]]
        with pytest.raises((ValueError, RuntimeError), match=f"^{re.escape(message)}"):
            operator(*arguments)


def spoiled(**changes):
    """Make a pattern that is none, as a hostile file may hold it."""
    pattern = spgrad.Pattern(eight("csr64"))
    for name, change in changes.items():
        setattr(pattern, name, change(getattr(pattern, name)))
    return pattern


@pytest.mark.parametrize(
    "changes",
    [
        {"_tensors": lambda _: None},
        {"_tensors": lambda tensors: tensors[:3]},
        {"_tensors": lambda tensors: (*tensors[:3], 5)},
        {"_tensors": lambda tensors: (*tensors[:3], {"anything": tensors})},
        {"_shape": lambda _: (8.0, 8.0)},
        {"_shape": lambda _: ("rows", 8)},
        {"_values_shape": lambda _: (None,)},
    ],
)
def test_states_that_are_no_pattern_are_refused_on_loading(changes):
    message = "the state of a Pattern must be four tensors and two shapes"
    with pytest.raises((ValueError, pickle.UnpicklingError), match=message):
        loaded_without_trust(spoiled(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"_shape": lambda _: (8, 2**40)},
        {"_shape": lambda _: (8, -8)},
        {"_shape": lambda _: ()},
        {"_values_shape": lambda _: (9,)},
        {"_values_shape": lambda _: (-8,)},
        {"_tensors": lambda tensors: (*tensors[:3], torch.full_like(tensors[3], 2**31 - 1))},
        {"_tensors": lambda tensors: (*tensors[:1], tensors[1] + 8, *tensors[2:])},
        {"_tensors": lambda tensors: (*tensors[:3], tensors[3].double())},
        {"_tensors": lambda tensors: tensors[::-1]},
    ],
)
def test_a_pattern_from_a_hostile_file_is_refused_by_its_products(changes):
    pattern = loaded_without_trust(spoiled(**changes))
    values, B = ones(8, requires_grad=True), ones(8, 2, requires_grad=True)
    with pytest.raises((ValueError, RuntimeError), match="must"):
        pattern.mm(values, B).sum().backward()


class Executed:
    """An object that runs something where it is loaded with trust."""

    ran = False

    def __reduce__(self):
        return setattr, (Executed, "ran", True)


def test_loading_a_pattern_executes_nothing():
    with pytest.raises(pickle.UnpicklingError, match="setattr"):
        loaded_without_trust(spoiled(_shape=lambda _: (Executed(),)))
    assert not Executed.ran
    with pytest.raises(ValueError, match="the state of a Pattern"):
        pickled(spoiled(_shape=lambda _: (Executed(),)))
    assert Executed.ran  # so that the object could have done it


def test_sizes_that_overflow_are_refused():
    offsets, entries = torch.zeros(13).int(), torch.zeros(0, 2).int()
    size = (4, 2**62, 3)  # for which 4 · 2^62 + 1 offsets are 1 in 64 bits
    with pytest.raises(ValueError, match=r"must be fewer than 2\^60"):
        torch.ops.spgrad.pattern_mm(
            offsets[:1], entries, offsets, entries, size, ones(0), ones(4, 3, 1)
        )
