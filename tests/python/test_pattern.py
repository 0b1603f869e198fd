"""A structure that is prepared once: its products, its independence and its checks."""

import copy
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import malformed
import pytest
import torch
from oracle import (
    BATCHED,
    DTYPES,
    KINDS,
    PLAIN,
    assert_dense,
    dense_for,
    gradient_of_B,
    gradient_of_values,
    integers,
    is_csr,
    make_sparse,
    output_gradient_for,
    product,
    values_of,
)
from test_layouts_and_strides import STRIDES, every_second_column, one_number, transposed
from test_product import EMPTY
from test_transforms import function_of, writer_of
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap
from torch.library import opcheck

import spgrad

ALL_KINDS = pytest.mark.parametrize("kind", KINDS)
# Entries in place, entries in place in a batch of items of their own, and entries with positions.
FORMS = pytest.mark.parametrize("kind", ["coalesced", "csr32", "uncoalesced"])
SIZES = pytest.mark.parametrize("size", [PLAIN, BATCHED], ids=["plain", "batched"])
BOTH_DTYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)
WANTED = pytest.mark.parametrize("wanted", [("values",), ("B",), ("values", "B")], ids="+".join)
FORWARD_MODE = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
PRODUCTS = ("mm", "mm_transposed", "sddmm", "mm_backward")


def leaves_for(A, p=3):
    """Return values and a B that require gradients, and a gradient of the product."""
    values, B = values_of(A).clone().requires_grad_(), dense_for(A, p).requires_grad_()
    return values, B, output_gradient_for(A, p)


def assert_right(multiply, A, p=3, wanted=("values", "B")):
    """Check a product with A's structure and its wanted gradients."""
    values, B, G = leaves_for(A, p)
    leaves = {"values": values, "B": B}
    for name, leaf in leaves.items():
        leaf.requires_grad_(name in wanted)
    C = multiply(values, B)
    assert C.dtype == A.dtype
    assert C.is_contiguous()
    assert_dense(C, product(A, B))
    C.backward(G)
    expected = {"values": gradient_of_values(A, B, G), "B": gradient_of_B(A, G)}
    for name, leaf in leaves.items():
        if name in wanted:
            assert_dense(leaf.grad, expected[name])
        else:
            assert leaf.grad is None


@WANTED
@BOTH_DTYPES
@pytest.mark.parametrize(
    ("size", "entries", "p"),
    [pytest.param(PLAIN, 8, 3, id="plain"), pytest.param(BATCHED, 24, 3, id="batched"), *EMPTY],
)
@ALL_KINDS
def test_the_product_and_its_gradients_are_right(kind, size, entries, p, dtype, wanted):
    A = make_sparse(kind, size, entries, dtype=dtype)
    assert_right(spgrad.Pattern(A).mm, A, p, wanted)


@SIZES
@ALL_KINDS
def test_a_pattern_tells_its_shape_and_that_of_the_values(kind, size):
    A = make_sparse(kind, size)
    pattern = spgrad.Pattern(A)
    assert (pattern.shape, pattern.values_shape) == (A.shape, values_of(A).shape)
    assert (pattern.nnz, pattern.device) == (values_of(A).numel(), torch.device("cpu"))
    assert repr(pattern) == f"Pattern(shape={size}, nnz={pattern.nnz})"


def test_values_and_their_gradient_are_in_the_order_of_unsorted_entries_with_duplicates():
    A = torch.sparse_coo_tensor([[1, 0, 1], [0, 1, 0]], torch.zeros(3), (2, 2))
    values = torch.tensor([3.0, 2.0, 4.0], requires_grad=True)
    C = spgrad.Pattern(A).mm(values, torch.tensor([[1.0], [10.0]]))
    assert torch.equal(C, torch.tensor([[20.0], [7.0]]))
    C.backward(torch.tensor([[5.0], [100.0]]))
    assert values.grad.tolist() == [100.0, 50.0, 100.0]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float16, torch.complex64])
def test_a_matrix_of_any_dtype_has_a_pattern(dtype):
    pattern = spgrad.Pattern(torch.eye(3).to(dtype).to_sparse())
    assert torch.equal(pattern.mm(torch.arange(3.0), torch.eye(3)), torch.arange(3.0).diag())


@STRIDES
@SIZES
@FORMS
def test_B_and_the_gradient_of_the_product_may_have_any_strides(kind, size, restride):
    A = make_sparse(kind, size)
    values, B, G = leaves_for(A)
    B, G = restride(B.detach()).requires_grad_(), restride(G)
    C = spgrad.Pattern(A).mm(values, B)
    assert_dense(C, product(A, B))
    C.backward(G)
    assert_dense(values.grad, gradient_of_values(A, B, G))
    assert_dense(B.grad, gradient_of_B(A, G))


@pytest.mark.parametrize("restride", [every_second_column, one_number, transposed])
@SIZES
@FORMS
def test_values_may_have_any_strides(kind, size, restride):
    A = make_sparse(kind, size)
    values, B, G = leaves_for(A)
    values = values.detach().reshape(-1, values.shape[-1])  # every restride takes a matrix
    values = restride(values).view(values_of(A).shape).requires_grad_()
    values_of(A).copy_(values.detach())
    C = spgrad.Pattern(A).mm(values, B)
    assert_dense(C, product(A, B))
    C.backward(G)
    assert_dense(values.grad, gradient_of_values(A, B, G))


@SIZES
@ALL_KINDS
def test_a_change_of_the_indices_in_place_does_not_reach_the_pattern(kind, size):
    A, same = make_sparse(kind, size), make_sparse(kind, size)
    pattern = spgrad.Pattern(A)
    for held in (A.crow_indices(), A.col_indices()) if is_csr(kind) else (A._indices(),):
        held.zero_()
    if is_csr(kind):
        assert not A.crow_indices().any()
    else:
        assert not A._indices().any()
    assert_right(pattern.mm, same)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda pattern: pickle.loads(pickle.dumps(pattern))],  # noqa: S301
    ids=["copy", "deepcopy", "pickle"],
)
@SIZES
@ALL_KINDS
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
    assert pattern.to("cpu") is pattern
    meta = pattern.to("meta")
    values, B = (x.detach().to("meta").requires_grad_() for x in leaves_for(A)[:2])
    C = meta.mm(values, B)
    C.sum().backward()
    assert meta.device == C.device == torch.device("meta")
    assert (C.shape, C.dtype) == ((*size[:-1], 3), torch.float32)
    assert (values.grad.shape, B.grad.shape) == (values.shape, B.shape)


@pytest.mark.parametrize("name", ["shape", "values_shape", "nnz", "device", "anything"])
def test_nothing_of_a_pattern_can_be_set(name):
    pattern = spgrad.Pattern(make_sparse("csr64", PLAIN))
    with pytest.raises(AttributeError):
        setattr(pattern, name, None)


@FORMS
def test_threads_may_use_a_pattern_at_the_same_time(kind):
    A = make_sparse(kind, (500, 400), 60_000)
    pattern = spgrad.Pattern(A)
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(assert_right, pattern.mm, A, p) for p in range(16)]
    for task in tasks:
        task.result()


@FORWARD_MODE
@SIZES
@ALL_KINDS
def test_products_pass_gradcheck_twice_and_forward(kind, size):
    A = make_sparse(kind, size)
    pattern, inputs = spgrad.Pattern(A), leaves_for(A)[:2]
    assert gradcheck(pattern.mm, inputs, check_forward_ad=True)
    assert gradgradcheck(pattern.mm, inputs)


@FORWARD_MODE
@SIZES
@FORMS
def test_grad_and_jvp_are_those_of_the_dense_product(kind, size):
    A = make_sparse(kind, size)
    f, values, B, G = spgrad.Pattern(A).mm, values_of(A), dense_for(A), output_gradient_for(A)
    gradients = grad(lambda v, B: (f(v, B) * G).sum(), argnums=(0, 1))(values, B)
    assert_dense(gradients[0], gradient_of_values(A, B, G))
    assert_dense(gradients[1], gradient_of_B(A, G))
    dv, dB = integers(*values.shape, seed=20), integers(*B.shape, seed=21)
    C, change = jvp(f, (values, B), (dv, dB))
    assert_dense(C, product(A, B))
    assert_dense(change, writer_of(A)(dv) @ B + product(A, dB))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("dims", [(0, None), (None, 0), (0, 0)], ids=str)
@SIZES
@FORMS
def test_vmap_multiplies_item_by_item(kind, size, dims):
    A = make_sparse(kind, size)
    values = torch.stack([values_of(A) * factor for factor in (1, 2, 3)])
    Bs = torch.stack([dense_for(A, seed=seed) for seed in (1, 2, 3)])
    operands = [x[0] if dim is None else x for x, dim in zip((values, Bs), dims, strict=True)]
    C = vmap(spgrad.Pattern(A).mm, dims)(*operands)
    for i in range(3):
        v, B = values[0 if dims[0] is None else i], Bs[0 if dims[1] is None else i]
        assert_dense(C[i], writer_of(A)(v) @ B)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@SIZES
@FORMS
def test_compiled_without_graph_breaks_the_product_and_gradients_are_the_same(kind, size, dynamic):
    torch.compiler.reset()
    A = make_sparse(kind, size)
    pattern = spgrad.Pattern(A)

    @torch.compile(fullgraph=True, backend="aot_eager", dynamic=dynamic)
    def compiled(values, B):
        return -pattern.mm(-values, B)

    for p in (3, 4, 6):
        assert_right(compiled, A, p)


def operator_and_arguments(name, A):
    """Return an operator and its arguments, those that have a gradient as leaves."""
    values, B, G = (leaf.detach().requires_grad_() for leaf in leaves_for(A))
    operands = {"mm": (values, B), "mm_transposed": (values, G), "sddmm": (G, B)}
    values.detach_().resize_(values.numel()).requires_grad_()
    tensors = spgrad.Pattern(A)._tensors
    operator = getattr(torch.ops.spgrad, f"pattern_{name}").default
    return operator, (*tensors, tuple(A.shape), *operands.get(name, (values, B, G)))


# opcheck itself asks for the gradient of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("name", PRODUCTS)
@SIZES
@FORMS
def test_operators_keep_their_contract_with_pytorch(kind, size, name):
    outcomes = opcheck(*operator_and_arguments(name, make_sparse(kind, size)))
    assert set(outcomes.values()) == {"SUCCESS"}
