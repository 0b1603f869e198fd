"""The product of two dense matrices at the entries of a sparse one, and what it is used in."""

import re
import weakref

import pytest
import torch
from cases import (
    ALL_KINDS,
    BOTH_FORMS,
    BOTH_SIZES,
    EMPTY,
    RESTRIDES,
    SIZES,
)
from forms import Operators, sampled_product_of
from oracle import (
    BATCHED,
    DTYPES,
    KINDS,
    PLAIN,
    assert_dense,
    assert_pattern,
    exact,
    integers,
    is_csr,
    make_sparse,
    positions_of,
    to_dense,
    values_of,
)
from pairs import pairwise
from torch import ones
from torch.autograd import forward_ad
from torch.func import jvp, vmap

import spgrad

SHAPES = {"plain": (PLAIN, 8, 3), "batched": (BATCHED, 24, 3), **EMPTY}


def dense_operands(A, p=3, dtype=None):
    """Make an X and a Y that fit A."""
    *batch, n, m = A.shape
    dtype = dtype or A.dtype
    return integers(*batch, n, p, dtype=dtype, seed=5), integers(*batch, m, p, dtype=dtype, seed=6)


def of_sparse(A, X, Y):
    """Return the values of the sparse product, which must have A's pattern."""
    C = spgrad.sddmm(A, X, Y)
    assert_pattern(C, A.to(X.dtype))
    return values_of(C)


def of_plain(A, X, Y):
    """Compute the products by A's plain tensors."""
    return sampled_product_of("", A)(X, Y)


def of_pattern(A, X, Y):
    """Compute the products by a pattern."""
    return spgrad.Pattern(A).sddmm(X, Y)


def counts_of(A):
    """Count A's entries at each place."""
    places = positions_of(A)
    return torch.zeros(A.shape, dtype=torch.float64).index_put_(
        places, torch.ones(places[0].shape, dtype=torch.float64), accumulate=True
    )


def expected_values(A, X, Y):
    """Compute X Yᵀ, and take it at A's entries."""
    return (exact(X) @ exact(Y).mT)[positions_of(A)].reshape(values_of(A).shape)


@pairwise(kind=KINDS, shape=SHAPES, dtype=DTYPES)
def test_products_are_those_of_the_dense_matrices_at_the_entries(kind, shape, dtype):
    size, entries, p = SHAPES[shape]
    A = make_sparse(kind, size, entries, dtype=dtype)
    X, Y = dense_operands(A, p)
    for sample in (of_sparse, of_plain, of_pattern):
        values = sample(A, X, Y)
        assert values.dtype == dtype
        assert_dense(values, expected_values(A, X, Y))


@pairwise(kind=KINDS, size=BOTH_SIZES.values(), dtype=(torch.float64, torch.complex64))
def test_gradients_are_products_of_the_matrix_of_gradients(kind, size, dtype):
    A = make_sparse(kind, size, dtype=dtype)
    X, Y = (x.requires_grad_() for x in dense_operands(A))
    G = integers(*values_of(A).shape, dtype=dtype, seed=9)
    values_of(A).copy_(G)  # so that it is the matrix with the gradients
    for sample in (of_plain, of_pattern):
        X.grad = Y.grad = None
        sample(A, X, Y).backward(G)
        assert_dense(X.grad, to_dense(A) @ exact(Y).conj())
        assert_dense(Y.grad, to_dense(A).mT @ exact(X).conj())


@pairwise(kind=KINDS, size=BOTH_SIZES.values(), restride=RESTRIDES)
def test_operands_may_have_any_strides(kind, size, restride):
    A = make_sparse(kind, size)
    X, Y = map(restride, dense_operands(A))
    for sample in (of_sparse, of_plain, of_pattern):
        assert_dense(sample(A, X, Y), expected_values(A, X, Y))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float16, torch.complex64])
@BOTH_FORMS
def test_the_values_of_the_matrix_are_of_any_dtype_and_not_used(kind, dtype):
    A = make_sparse(kind, PLAIN, dtype=dtype)
    X, Y = dense_operands(A, dtype=torch.float64)
    values_of(A).zero_()
    assert_dense(values_of(spgrad.sddmm(A, X, Y)), expected_values(A, X, Y))


@SIZES
@BOTH_FORMS
def test_only_the_dense_matrices_get_gradients(kind, size):
    A = make_sparse(kind, size).requires_grad_()
    X, Y = dense_operands(A)
    assert not spgrad.sddmm(A, X, Y).requires_grad
    C = spgrad.sddmm(A, X.requires_grad_(), Y)
    assert C.requires_grad
    (C.values().sum() if is_csr(kind) else torch.sparse.sum(C)).backward()
    assert A.grad is None
    assert Y.grad is None
    counts = counts_of(A)
    assert_dense(X.grad, counts @ exact(Y))


# What becomes of a sparse result: by this library and by PyTorch; and the same of a dense matrix.
USES = {
    "multiplied": (
        spgrad.sparse_mm,
        lambda D, B: D @ B,
    ),
    "multiplied twice": (
        lambda C, B: spgrad.sparse_mm(C, B) + spgrad.sparse_mm(C, B * 2),
        lambda D, B: D @ (3 * B),
    ),
    "scaled, multiplied": (
        lambda C, B: spgrad.sparse_mm(C * 2, B),
        lambda D, B: 2 * D @ B,
    ),
    "changed to COO, multiplied": (
        lambda C, B: spgrad.sparse_mm(C.to_sparse_coo().coalesce(), B),
        lambda D, B: D @ B,
    ),
    "summed": (
        lambda C, B: torch.sparse.sum(C.to_sparse_coo()) * B,
        lambda D, B: D.sum() * B,
    ),
    "values of COO": (
        lambda C, B: C.to_sparse_coo().coalesce().values().sum() * B,
        lambda D, B: D.sum() * B,
    ),
    "written out": (
        lambda C, B: C.to_dense() @ B,
        lambda D, B: D @ B,
    ),
}


@pairwise(kind=KINDS, use=USES)
def test_derivatives_through_the_sparse_result_are_those_through_a_dense_matrix(kind, use):
    ours, dense = USES[use]
    A = make_sparse(kind, PLAIN)
    counts = counts_of(A)
    X, Y = (torch.randn_like(x).requires_grad_() for x in dense_operands(A))
    B = torch.randn(PLAIN[1], 2, dtype=torch.float64, requires_grad=True)

    def derivatives(result):
        first = torch.autograd.grad(result.pow(3).sum(), (X, Y, B), create_graph=True)
        second = torch.autograd.grad(sum(g.pow(2).sum() for g in first), (X, Y, B))
        return result, *first, *second

    C = spgrad.sddmm(A, X, Y)
    torch.testing.assert_close(derivatives(ours(C, B)), derivatives(dense(counts * (X @ Y.mT), B)))


@SIZES
@ALL_KINDS
def test_a_batch_is_multiplied_and_differentiated_item_by_item(kind, size):
    A = make_sparse(kind, size)
    counts = counts_of(A)
    X, Y = (torch.randn_like(x).requires_grad_() for x in dense_operands(A))
    B = torch.randn_like(Y)
    ours = torch.autograd.grad(spgrad.sparse_mm(spgrad.sddmm(A, X, Y), B).pow(2).sum(), (X, Y))
    right = torch.autograd.grad((counts * (X @ Y.mT) @ B).pow(2).sum(), (X, Y))
    torch.testing.assert_close(ours, right)


@ALL_KINDS
def test_no_change_of_the_result_in_place_reaches_csr_indices_of_the_matrix(kind):
    A, same = make_sparse(kind, PLAIN), make_sparse(kind, PLAIN)
    C = spgrad.sddmm(A, *dense_operands(A))
    if is_csr(kind):
        C.zero_()
        C.crow_indices().fill_(77)
    assert_pattern(A, same)


@BOTH_FORMS
def test_a_graph_is_freed_with_its_result(kind):
    A = make_sparse(kind, PLAIN)
    X, Y = (x.requires_grad_() for x in dense_operands(A))
    C = spgrad.sddmm(A, X, Y)
    marker = type("Marker", (), {})()
    C.grad_fn.metadata["marker"] = marker
    freed = weakref.ref(marker)
    spgrad.sparse_mm(C, Y).sum().backward()
    del marker, C
    assert freed() is None


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's forward mode
@BOTH_FORMS
def test_the_sparse_result_has_no_forward_mode_and_says_what_has(kind):
    A = make_sparse(kind, PLAIN)
    X, Y = dense_operands(A)
    with (
        forward_ad.dual_level(),
        pytest.raises(RuntimeError, match="use csr_sddmm or coo_sddmm, whose result is a dense"),
    ):
        spgrad.sddmm(A, forward_ad.make_dual(X, X), Y)
    for sample in (sampled_product_of("", A), spgrad.Pattern(A).sddmm):
        products, change = jvp(lambda X, sample=sample: sample(X, Y), (X,), (X * 2,))
        assert_dense(products, expected_values(A, X, Y))
        assert_dense(change, 2 * expected_values(A, X, Y))


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
@BOTH_FORMS
def test_without_gradients_there_is_none(kind, context):
    A = make_sparse(kind, PLAIN)
    X, Y = (x.requires_grad_() for x in dense_operands(A))
    with context():
        C = spgrad.sddmm(A, X, Y)
    assert not C.requires_grad
    assert_dense(values_of(C), expected_values(A, X, Y))


@BOTH_FORMS
def test_autocast_casts_the_dense_matrices(kind):
    A = make_sparse(kind, PLAIN, dtype=torch.float32)
    X, Y = (x.requires_grad_() for x in dense_operands(A))
    with torch.autocast(X.device.type, torch.bfloat16):
        C = spgrad.sddmm(A, X, Y.bfloat16())
    assert C.dtype == torch.bfloat16
    assert_dense(values_of(C), expected_values(A, X, Y))
    spgrad.sparse_mm(C, Y.bfloat16()).sum().backward()
    assert X.grad.dtype == Y.grad.dtype == torch.float32


@pairwise(kind=("csr64", "uncoalesced"), sample=(of_plain, of_pattern), dims=((0, None), (None, 0)))
def test_vmap_gives_the_values_of_each_item(kind, sample, dims):
    A = make_sparse(kind, PLAIN)
    X, Y = dense_operands(A)
    Xs, Ys = torch.stack([X, 2 * X]), torch.stack([Y, 3 * Y])
    values = vmap(lambda X, Y: sample(A, X, Y), dims)(
        X if dims[0] is None else Xs, Y if dims[1] is None else Ys
    )
    factor = 2 if dims[1] is None else 3
    assert_dense(values[1], factor * expected_values(A, X, Y))


def test_vmap_over_sparse_matrices_gives_one_for_each_item():
    As, A = make_sparse("uncoalesced", BATCHED), make_sparse("csr64", PLAIN)
    X, Y = dense_operands(As)
    Cs = vmap(spgrad.sddmm)(As, X, Y)
    assert torch.equal(Cs._indices(), As._indices())
    assert_dense(Cs._values(), expected_values(As, X, Y))
    with pytest.raises(ValueError, match="received one A for all of them and shapes"):
        vmap(lambda X, Y: spgrad.sddmm(A, X, Y))(X, Y)


def test_a_compiled_function_gives_the_same():
    torch.compiler.reset()
    A = make_sparse("csr64", PLAIN)
    crow, col, pattern = A.crow_indices().clone(), A.col_indices().clone(), spgrad.Pattern(A)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def scores(X, Y):
        return spgrad.csr_sddmm(crow, col, X, Y) + pattern.sddmm(X, Y)

    X, Y = (x.requires_grad_() for x in dense_operands(A))
    values = scores(X, Y)
    assert_dense(values, 2 * expected_values(A, X, Y))
    values.sum().backward()
    assert_dense(X.grad, 2 * counts_of(A) @ exact(Y))


@BOTH_FORMS
def test_the_operators_behind_it_are_seen_by_the_profiler(kind):
    A = make_sparse(kind, PLAIN)
    with torch.profiler.profile(acc_events=True) as profile:
        spgrad.sddmm(A, *dense_operands(A))
    form = Operators(A).form
    assert {"spgrad::sddmm", f"spgrad::{form}_sddmm"} <= {event.name for event in profile.events()}


HYBRID = ones(4, 5, 2).to_sparse(2)
SPARSE = ones(4, 5).to_sparse_csr()


@pytest.mark.parametrize(
    ("A", "X", "Y", "error", "message"),
    [
        ([[1.0]], ones(4, 2), ones(5, 2), ValueError, "A must be a torch.Tensor, but received lis"),
        (SPARSE, None, ones(5, 2), ValueError, "X must be a torch.Tensor, but received NoneType"),
        (ones(4, 5), ones(4, 2), ones(5, 2), ValueError, "A must be a sparse COO or CSR tensor"),
        (SPARSE.to_sparse_csc(), ones(4, 2), ones(5, 2), ValueError, "A must be a sparse COO or C"),
        (ones(4).to_sparse(), ones(4, 2), ones(5, 2), ValueError, "A must have shape (n, m) or"),
        (HYBRID, ones(4, 2), ones(5, 2), ValueError, "A must have only sparse dimensions"),
        (SPARSE, ones(5, 2), ones(5, 2), ValueError, "X must have 4 rows, but received shape [5"),
        (SPARSE, ones(4, 2), ones(4, 2), ValueError, "Y must have 5 rows, but received shape [4"),
        (SPARSE, ones(4, 2), ones(5, 3), ValueError, "X and Y must have the same number of col"),
        (SPARSE, ones(1, 4, 2), ones(5, 2), ValueError, "X must be 2D for a sparse matrix"),
        (SPARSE, SPARSE, ones(5, 2), ValueError, "X must be a dense (strided) tensor"),
        (SPARSE, ones(4, 2), ones(5, 2).double(), RuntimeError, "X and Y must have the same dty"),
        (SPARSE, ones(4, 2).int(), ones(5, 2).int(), RuntimeError, "X and Y must be float32, flo"),
        (SPARSE, ones(4, 2), ones(5, 2).to("meta"), RuntimeError, "X, Y and the indices must be"),
    ],
)
def test_what_does_not_fit_is_refused(A, X, Y, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        spgrad.sddmm(A, X, Y)
