"""Softmax over the entries of rows and columns, and attention that is made with it."""

import re
from functools import partial

import pytest
import torch
from forms import matrix_of
from oracle import BATCHED, PLAIN, integers, positions_of, values_of
from pairs import pairwise
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck
from torch.func import vmap

import spgrad

FORMS = ("csr32", "csr64", "pattern of uncoalesced", "pattern of csr32")
LEADING = ((), (2,), (2, 3), (0,))


def softmax_of(form, A):
    """Return the softmax over A's entries as a function of values and dim."""
    if form.startswith("pattern"):
        return spgrad.Pattern(A).softmax
    crow, col, shape = A.crow_indices(), A.col_indices(), A.shape
    return lambda values, dim=-1: spgrad.csr_softmax(crow, col, values, shape, dim)


def values_for(A, *leading, dtype=torch.float64, seed=1):
    """Make values, a third of them equal."""
    return integers(*leading, *values_of(A).shape, seed=seed).to(dtype)


def expected_of(A, values, dim):
    """Compute the softmax of the entries of each row, or column, one after the other."""
    shape, places = values.shape, positions_of(A)
    values = values.flatten(-values_of(A).dim())
    group = places[-3 - dim]  # the row of each entry, or its column
    if A.dim() == 3:
        group = places[0] * max(A.shape) + group
    members = [(group == number).nonzero().flatten() for number in group.unique()]
    parts = [values[..., entries].softmax(-1) for entries in members]
    order = torch.cat(members).argsort()
    return torch.cat(parts, -1)[..., order].reshape(shape)


@pairwise(form=FORMS, size=(PLAIN, BATCHED), dim=(-1, -2), leading=LEADING)
def test_softmax_and_its_derivatives_are_those_of_each_row(form, size, dim, leading):
    A = matrix_of(form, size)
    softmax = softmax_of(form, A)
    values = values_for(A, *leading).requires_grad_()

    def derivatives(result):
        (first,) = torch.autograd.grad(result.pow(3).sum(), values, create_graph=True)
        return result, first, *torch.autograd.grad(first.pow(2).sum(), values)

    ours = derivatives(softmax(values, dim=dim))
    assert ours[0].shape == values.shape
    torch.testing.assert_close(ours, derivatives(expected_of(A, values, dim)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_numbers_of_16_bits_are_computed_in_float32(form, dtype):
    A = matrix_of(form)
    values = values_for(A, dtype=dtype)
    result = softmax_of(form, A)(values)
    assert result.dtype == dtype
    expected = expected_of(A, values.double(), -1)
    torch.testing.assert_close(result.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_great_numbers_do_not_overflow_and_nan_stays_in_its_row(form):
    A = matrix_of(form)
    values = values_for(A) * 1e300
    softmax = softmax_of(form, A)
    torch.testing.assert_close(softmax(values), expected_of(A, values, -1))
    values = values_for(A)
    values[3], values[5] = torch.nan, -torch.inf
    torch.testing.assert_close(softmax(values), expected_of(A, values, -1), equal_nan=True)


def test_rows_without_entries_have_none():
    values = spgrad.csr_softmax(
        torch.tensor([0, 0, 2, 2]), torch.tensor([1, 0]), torch.tensor([0.0, 0.0]), (3, 2)
    )
    assert values.tolist() == [0.5, 0.5]
    none = spgrad.Pattern(torch.zeros(3, 2).to_sparse()).softmax(torch.zeros(0))
    assert none.shape == (0,)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's forward mode
@pytest.mark.parametrize("form", ["csr32", "pattern of uncoalesced"])
def test_forward_mode_vmap_and_compiled_functions_give_the_same(form):
    torch.compiler.reset()
    A = matrix_of(form)
    softmax = softmax_of(form, A)
    values = values_for(A, 2).requires_grad_()
    assert gradcheck(softmax, values, check_forward_ad=True, fast_mode=True)
    expected = expected_of(A, values, -1)
    torch.testing.assert_close(vmap(softmax)(values), expected)
    compiled = torch.compile(softmax, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(values), expected)


def test_autocast_leaves_a_softmax_in_its_precision():
    A = matrix_of("csr32")
    values = values_for(A, dtype=torch.float32)
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        result = softmax_of("csr32", A)(values)
    torch.testing.assert_close(result, expected_of(A, values.double(), -1).float())


def test_attention_on_a_graph_is_that_of_the_masked_dense_matrices():
    A = matrix_of("csr64", (6, 7))
    pattern = spgrad.Pattern(A)
    q, k, v = (torch.rand(2, n, 3, dtype=torch.float64, requires_grad=True) for n in (6, 7, 7))
    scores = pattern.sddmm(q, k) / q.shape[-1] ** 0.5
    ours = pattern.mm(pattern.softmax(scores), v)
    mask = torch.zeros(6, 7, dtype=torch.bool)
    mask[positions_of(A)] = True
    assert mask.any(1).all()
    right = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(ours, right)
    torch.testing.assert_close(
        torch.autograd.grad(ours.pow(2).sum(), (q, k, v)),
        torch.autograd.grad(right.pow(2).sum(), (q, k, v)),
    )


@pytest.mark.parametrize("bad", [-1, 5, 2**40])
@pytest.mark.parametrize("dim", [-1, -2])
def test_an_index_out_of_bounds_is_refused(dim, bad):
    A = matrix_of("csr64")
    col = A.col_indices().clone()
    col[3] = bad
    with pytest.raises(RuntimeError, match=rf"col_indices must be in \[0, 5\), but received {bad}"):
        spgrad.csr_softmax(A.crow_indices(), col, values_for(A), A.shape, dim)


@pytest.mark.parametrize(
    ("values", "dim", "error", "message"),
    [
        ([1.0], -1, ValueError, "values must be a torch.Tensor, but received list"),
        (torch.ones(8), 0, ValueError, "dim must be -1, the entries of each row, or -2, those"),
        (torch.ones(7), -1, ValueError, "values must have "),
        (torch.ones(8).int(), -1, RuntimeError, "values and B must be float32, float64"),
        (torch.ones(8).cfloat(), -1, RuntimeError, "values must be real for a softmax, but rec"),
    ],
)
@pytest.mark.parametrize("form", ["csr32", "pattern of csr32"])
def test_what_does_not_fit_is_refused(form, values, dim, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        softmax_of(form, matrix_of(form))(values, dim)


def test_offsets_of_another_shape_are_refused():
    A = matrix_of("csr32")
    call = partial(spgrad.csr_softmax, A.crow_indices(), A.col_indices(), values_for(A))
    with pytest.raises(ValueError, match=r"crow_indices must have shape \[4\] for size \[3, 5\]"):
        call((3, 5))


def test_there_may_be_more_entries_than_a_product_can_compare():
    with FakeTensorMode():
        crow, col = torch.empty(3, dtype=torch.int64), torch.empty(2**31, dtype=torch.int64)
        assert spgrad.csr_softmax(crow, col, torch.empty(2**31), (2, 5)).shape == (2**31,)
