"""The registered operators: their contracts with PyTorch, and the products that are gradients."""

import re

import pytest
import torch
from cases import BOTH_FORMS, BOTH_SIZES
from forms import PRODUCTS, Operators, matrix_of, operands_for, operands_of
from oracle import (
    KINDS,
    PLAIN,
    assert_dense,
    dense_for,
    gradient_of_B,
    gradient_of_values,
    make_sparse,
    product,
)
from pairs import pairwise
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck

ops = torch.ops.spgrad

PATTERNS = ("pattern of csr32", "pattern of uncoalesced")
TENSORS = ("csr32", "csr64", "uncoalesced")
FORMS = (*TENSORS, *PATTERNS)
SAME_WIDTH = "must have the same number of columns, but received shapes"
OF_EACH_PRODUCT = pytest.mark.parametrize("name", PRODUCTS)


def cases_with(*dtypes, products=PRODUCTS):
    """Parametrise by forms, sizes, products and dtypes, so that all pairs meet."""
    return pairwise(form=FORMS, size=BOTH_SIZES.values(), name=products, dtype=dtypes)


# opcheck itself asks for the gradient of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@cases_with(torch.float64, torch.bfloat16, torch.complex64)
def test_operators_keep_their_contract_with_pytorch(form, size, name, dtype):
    operator, arguments = Operators(matrix_of(form, size, dtype=dtype), form).with_leaves(name)
    outcomes = opcheck(operator, arguments)
    assert set(outcomes.values()) == {"SUCCESS"}


@pairwise(kind=TENSORS, size=BOTH_SIZES.values())
def test_operators_are_the_products_that_they_say(kind, size):
    A = make_sparse(kind, size)
    values, B, G = operands_for(A)
    call = Operators(A)
    assert_dense(call("mm", values, B), product(A, B))
    assert_dense(call("mm_transposed", values, G), gradient_of_B(A, G))
    assert_dense(call("sddmm", G, B), gradient_of_values(A, B, G))
    of_values, of_B = call("mm_backward", values, B, G)
    assert_dense(of_values, gradient_of_values(A, B, G))
    assert_dense(of_B, gradient_of_B(A, G))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch's own forward AD
@pairwise(
    form=(*KINDS, *PATTERNS),
    size=BOTH_SIZES.values(),
    name=PRODUCTS,
    dtype=(torch.float64, torch.complex128),
)
def test_operators_pass_gradcheck_twice_and_forward(form, size, name, dtype):
    operator, arguments = Operators(matrix_of(form, size, dtype=dtype), form).with_leaves(name)
    assert gradcheck(operator, arguments, check_forward_ad=True)
    assert gradgradcheck(operator, arguments)


@cases_with(torch.float64, torch.complex128, products=("mm_backward",))
def test_the_fused_backward_gives_the_gradients_of_the_single_ones(form, size, name, dtype):
    operator, arguments = Operators(matrix_of(form, size, dtype=dtype), form).with_leaves(name)
    with torch.no_grad():
        fused = operator(*arguments)
    single = operator(*arguments)  # with a history, made of two operators
    assert not any(gradient.requires_grad for gradient in fused)
    assert all(gradient.requires_grad for gradient in single)
    for ours, theirs in zip(fused, single, strict=True):
        assert torch.equal(ours, theirs)


# Of coo_*; what becomes of an operand, and what is said.
REFUSED = [
    ("sddmm", 0, lambda X: X[1:], "X must have 4 rows, but received shape [3, 3]"),
    ("sddmm", 1, lambda Y: Y[1:], "Y must have 5 rows, but received shape [4, 3]"),
    ("sddmm", 1, lambda Y: Y[:, 1:], f"X and Y {SAME_WIDTH} [4, 3] and [5, 2]"),
    ("sddmm", 0, torch.Tensor.float, "X and Y must have the same dtype"),
    ("sddmm", 0, lambda X: X.to("meta"), "X, Y and the indices must be on the same device"),
    ("mm_backward", 2, lambda G: G[1:], "grad must have 4 rows, but received shape [3, 3]"),
    ("mm_backward", 2, lambda G: G[:, 1:], f"grad and B {SAME_WIDTH} [4, 2] and [5, 3]"),
    ("mm_backward", 2, torch.Tensor.float, "values and grad must have the same dtype"),
    ("mm_transposed", 1, lambda X: X.mT, "B must have 4 rows, but received shape [3, 4]"),
]


@pytest.mark.parametrize(("name", "place", "change", "message"), REFUSED)
def test_operators_check_their_operands(name, place, change, message):
    A = make_sparse("uncoalesced", PLAIN)
    operands = list(operands_of(name, A))
    operands[place] = change(operands[place])
    with pytest.raises((ValueError, RuntimeError), match=f"^{re.escape(message)}"):
        Operators(A)(name, *operands)


def test_operators_check_dtypes_and_columns():
    A = make_sparse("csr64", PLAIN)
    values, B, G = operands_for(A)
    structure = A.crow_indices(), A.col_indices()
    with pytest.raises(RuntimeError, match=r"^X and Y must be float32, float64.* received Int"):
        ops.csr_sddmm(*structure, G.int(), B.int())
    with pytest.raises(ValueError, match=r"^columns must not be negative, but received -1"):
        ops.csr_mm_transposed(*structure, values, -1, G)


@OF_EACH_PRODUCT
def test_the_profiler_sees_the_operators_by_name_and_with_shapes(name):
    operator, arguments = Operators(make_sparse("csr64", PLAIN)).with_leaves(name)
    with torch.no_grad(), torch.profiler.profile(record_shapes=True, acc_events=True) as profile:
        operator(*arguments)
    (event,) = (event for event in profile.events() if event.name == f"spgrad::csr_{name}")
    shapes = [list(x.shape) if isinstance(x, torch.Tensor) else [] for x in arguments]
    assert event.input_shapes == shapes


@BOTH_FORMS
def test_the_profiler_sees_both_passes_of_the_sparse_product(kind):
    A = make_sparse(kind, PLAIN).requires_grad_()
    B = dense_for(A).requires_grad_()
    with torch.profiler.profile(record_shapes=True, acc_events=True) as profile:
        ops.sparse_mm(A, B).sum().backward()
    seen = {event.name: event.input_shapes for event in profile.events()}
    form = "csr" if kind == "csr32" else "coo"
    assert {f"spgrad::{form}_mm", f"spgrad::{form}_mm_backward"} <= set(seen)
    assert seen["spgrad::sparse_mm"][1] == list(B.shape)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("A", {"csr_mm", "csr_sddmm"}),
        ("B", {"csr_mm", "csr_mm_transposed"}),
        ("AB", {"csr_mm", "csr_mm_backward"}),
    ],
)
def test_backward_computes_only_what_is_wanted(wanted, names):
    A = make_sparse("csr64", PLAIN).requires_grad_("A" in wanted)
    B = dense_for(A).requires_grad_("B" in wanted)
    with torch.profiler.profile(acc_events=True) as profile:
        ops.sparse_mm(A, B).sum().backward()
    seen = {event.key.removeprefix("spgrad::") for event in profile.key_averages()}
    assert {name for name in seen if name.startswith("csr_")} == names
