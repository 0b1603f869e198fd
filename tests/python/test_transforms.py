"""torch.func, torch.compile and meta tensors over the products of plain tensors."""

import pytest
import torch
from cases import BOTH_FORMS, BOTH_SIZES, FORMS, SIZES
from forms import assert_right, function_of, matrix_of, operands_for, product_of, writer_of
from oracle import (
    BATCHED,
    PLAIN,
    assert_dense,
    assert_sparse,
    dense_for,
    gradient_of_B,
    gradient_of_values,
    integers,
    make_sparse,
    output_gradient_for,
    product,
    values_of,
)
from pairs import pairwise
from torch.func import jacfwd, jacrev, jvp, vjp

import spgrad

pytestmark = [
    # PyTorch's own forward mode is made with it.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
]


@SIZES
@BOTH_FORMS
def test_vjp_gives_the_product_and_both_gradients(kind, size):
    A = make_sparse(kind, size)
    B, G = dense_for(A), output_gradient_for(A)
    C, pull_back = vjp(function_of(A), values_of(A), B)
    assert_dense(C, product(A, B))
    gradients = pull_back(G)
    assert_dense(gradients[0], gradient_of_values(A, B, G))
    assert_dense(gradients[1], gradient_of_B(A, G))


@SIZES
@BOTH_FORMS
def test_jvp_is_the_sum_of_the_two_changes(kind, size):
    A = make_sparse(kind, size)
    B = dense_for(A)
    dv, dB = integers(*values_of(A).shape, seed=20), integers(*B.shape, seed=21)
    C, change = jvp(function_of(A), (values_of(A), B), (dv, dB))
    assert_dense(C, product(A, B))
    assert_dense(change, writer_of(A)(dv) @ B + product(A, dB))


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
@BOTH_FORMS
def test_jacobians_of_values_are_those_of_the_dense_product(jacobian, kind):
    A = make_sparse(kind, PLAIN)
    B = dense_for(A)
    actual = jacobian(function_of(A))(values_of(A), B)
    write = writer_of(A)
    expected = jacrev(lambda v: write(v) @ B)(values_of(A))
    assert_dense(actual, expected)


@BOTH_FORMS
def test_a_hessian_is_that_of_the_dense_product(kind):
    A = make_sparse(kind, PLAIN)
    B = dense_for(A)
    f = function_of(A)
    actual = jacfwd(jacrev(lambda v: f(v, B).pow(2).sum()))(values_of(A))
    write = writer_of(A)
    expected = jacfwd(jacrev(lambda v: (write(v) @ B).pow(2).sum()))(values_of(A))
    assert_dense(actual, expected)


@pairwise(
    form=(*FORMS, *(f"pattern of {kind}" for kind in FORMS)),
    size=BOTH_SIZES.values(),
    dynamic=(False, True),
)
def test_compiled_without_graph_breaks_the_product_and_gradients_are_the_same(form, size, dynamic):
    torch.compiler.reset()
    A = matrix_of(form, size)
    f = product_of(form, A)

    @torch.compile(fullgraph=True, backend="aot_eager", dynamic=dynamic)
    def compiled(values, B):
        return -2 * f(-values, B)

    for p in (3, 4, 6):
        assert_right(compiled, A, operands_for(A, p), factor=2, alone=p == 3)


@SIZES
@BOTH_FORMS
def test_meta_tensors_give_shapes_without_numbers(kind, size):
    A = make_sparse(kind, size, dtype=torch.float32)
    values, B = values_of(A).to("meta").requires_grad_(), dense_for(A).to("meta").requires_grad_()
    if A.layout == torch.sparse_coo:
        C = spgrad.coo_mm(A._indices().to("meta"), values, size, B)
    else:
        C = spgrad.csr_mm(A.crow_indices().to("meta"), A.col_indices().to("meta"), values, B)
    C.sum().backward()
    assert C.device.type == "meta"
    assert C.shape == (*size[:-1], 3)
    assert C.dtype == torch.float32
    assert (values.grad.shape, B.grad.shape) == (values.shape, B.shape)


def test_meta_tensors_are_checked_too():
    crow, col = torch.zeros(4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    crow, col, values, B = (x.to("meta") for x in (crow, col, torch.ones(1), torch.ones(2, 2)))
    with pytest.raises(ValueError, match="one element for each entry"):
        spgrad.csr_mm(crow, col, values, B)


def test_compiled_autograd_is_refused_by_name():
    A = make_sparse("csr64", PLAIN)
    C = function_of(A)(values_of(A).clone().requires_grad_(), dense_for(A)).sum()
    with (
        torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")),
        pytest.raises(NotImplementedError, match="compiled_args not implemented: CsrMmBackward"),
    ):
        C.backward()


# n, nnz and p.
GROWING = [(4, 8, 3), (5, 9, 4), (9, 20, 7)]


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@BOTH_FORMS
def test_one_compiled_graph_serves_all_sizes(kind, backend):
    from torch._dynamo.testing import CompileCounterWithBackend  # noqa: PLC0415 - takes seconds

    torch.compiler.reset()
    counter = CompileCounterWithBackend(backend)

    @torch.compile(fullgraph=True, backend=counter, dynamic=True)
    def csr(crow, col, values, B):
        return spgrad.csr_mm(crow, col, values * 3, B).mul(2)

    @torch.compile(fullgraph=True, backend=counter, dynamic=True)
    def coo(indices, values, n, B):
        return spgrad.coo_mm(indices, values * 3, (n, B.shape[0]), B).mul(2)

    for n, entries, p in GROWING:
        A = make_sparse(kind, (n, 6), entries)
        if kind == "csr32":
            parts = (A.crow_indices(), A.col_indices())
            assert_right(
                lambda v, B, parts=parts: csr(*parts, v, B),
                A,
                operands_for(A, p),
                factor=6,
                alone=False,
            )
        else:
            i = A._indices()
            assert_right(
                lambda v, B, i=i, n=n: coo(i, v, n, B), A, operands_for(A, p), factor=6, alone=False
            )
    assert counter.frame_count == 1


@pytest.mark.parametrize("kind", ["csr32", "uncoalesced"])
def test_inductor_compiles_a_pattern_that_is_closed_over(kind):
    torch.compiler.reset()
    A = make_sparse(kind, PLAIN)
    pattern = spgrad.Pattern(A)
    compiled = torch.compile(lambda v, B: pattern.mm(v * 3, B) * 2, fullgraph=True, dynamic=True)
    for p in (3, 5):
        assert_right(compiled, A, operands_for(A, p), factor=6, alone=False)


class Products(torch.nn.Module):
    """Both forms on plain tensors with one structure that is an input."""

    def forward(self, crow, col, values, B):
        rows = torch.arange(crow.shape[0] - 1).repeat_interleave(
            crow.diff(), output_size=col.shape[0]
        )
        by_csr = spgrad.csr_mm(crow, col, values, B)
        size = (crow.shape[0] - 1, B.shape[0])
        return by_csr + spgrad.coo_mm(torch.stack([rows, col]), values, size, B)


def test_an_exported_program_keeps_its_dynamic_sizes_through_a_file(tmp_path):
    def arguments(A, p):
        # Copies: PyTorch exports no views of sparse tensors, not even as inputs.
        parts = (A.crow_indices(), A.col_indices(), A.values())
        return *(part.clone() for part in parts), dense_for(A, p)

    n, nnz, p = (torch.export.Dim(name, min=3, max=1000) for name in ("n", "nnz", "p"))
    exported = torch.export.export(
        Products(),
        arguments(make_sparse("csr64", PLAIN), 3),
        dynamic_shapes=({0: n}, {0: nnz}, {0: nnz}, {1: p}),
    )
    torch.export.save(exported, tmp_path / "products.pt2")
    loaded = torch.export.load(tmp_path / "products.pt2").module()
    for rows, entries, columns in GROWING:
        A = make_sparse("csr64", (rows, PLAIN[1]), entries)
        inputs = arguments(A, columns)
        assert_dense(loaded(*inputs), 2 * product(A, inputs[-1]))


@pytest.mark.filterwarnings("ignore:.*sparse:UserWarning")
@pytest.mark.parametrize("closed_over", [False, True], ids=["argument", "closed over"])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize(
    ("kind", "size"), [("unflagged", PLAIN), ("coalesced", BATCHED), ("csr32", PLAIN)]
)
def test_a_compiled_function_breaks_at_the_sparse_product_and_is_right(
    kind, size, backend, closed_over
):
    torch.compiler.reset()
    A = make_sparse(kind, size).requires_grad_()

    def multiply(A, B):
        return 2 * spgrad.sparse_mm(A, B * 3)

    compiled = torch.compile(
        (lambda B: multiply(A, B)) if closed_over else multiply, backend=backend
    )
    for p in (3, 4):
        B, G = dense_for(A, p).requires_grad_(), output_gradient_for(A, p)
        A.grad = None
        C = compiled(B) if closed_over else compiled(A, B)
        assert_dense(C, 6 * product(A, B))
        C.backward(G)
        assert_sparse(A.grad, A, 6 * gradient_of_values(A, B, G))
        assert_dense(B.grad, 6 * gradient_of_B(A, G))


@pytest.mark.filterwarnings("ignore:.*sparse:UserWarning")
def test_pytorch_compiles_no_function_of_a_sparse_tensor_into_one_graph():
    torch.compiler.reset()
    compiled = torch.compile(spgrad.sparse_mm, fullgraph=True, backend="aot_eager")
    A = make_sparse("csr32", PLAIN)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="Attempted to wrap sparse Tensor"):
        compiled(A, dense_for(A))


def test_pytorch_makes_no_sparse_tensor_with_a_forward_derivative():
    A = make_sparse("coalesced", PLAIN)
    with (
        torch.autograd.forward_ad.dual_level(),
        pytest.raises(NotImplementedError, match="Cannot access storage of SparseTensorImpl"),
    ):
        torch.autograd.forward_ad.make_dual(A, A.clone())
