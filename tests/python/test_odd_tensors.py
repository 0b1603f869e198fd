"""Tensors of kinds that nobody expects: a right result, or an error that names the argument."""

import re

import pytest
import torch
from oracle import assert_dense
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import spgrad

CROW = torch.tensor([0, 2, 3, 5])
COL = torch.tensor([0, 3, 1, 0, 2])
VALUES = torch.arange(1.0, 6.0)
INDICES = torch.tensor([[0, 0, 1, 2, 2], COL.tolist()])
SIZE = (3, 4)
B = torch.arange(8.0).reshape(4, 2)
PRODUCT = torch.tensor([[1.0, 0, 0, 2], [0, 3, 0, 0], [4, 0, 5, 0]]).double() @ B.double()
DTYPES = "must be float32, float64, float16, bfloat16, complex64 or complex128, but received"


class Subclass(torch.Tensor):
    """A subclass that does nothing."""


def csr_mm(*, crow_indices=CROW, col_indices=COL, values=VALUES, B=B):
    return spgrad.csr_mm(crow_indices, col_indices, values, B)


def coo_mm(*, indices=INDICES, values=VALUES, B=B):
    return spgrad.coo_mm(indices, values, SIZE, B)


def csr_matrix_mm(*, values=VALUES, B=B):
    return spgrad.sparse_mm(torch.sparse_csr_tensor(CROW, COL, values, SIZE), B)


def coo_matrix_mm(*, values=VALUES, B=B):
    return spgrad.sparse_mm(torch.sparse_coo_tensor(INDICES, values, SIZE), B)


def pattern_mm(*, values=VALUES, B=B):
    pattern = spgrad.Pattern(torch.sparse_csr_tensor(CROW, COL, VALUES, SIZE))
    return pattern.mm(values, B)


PRODUCTS = [csr_mm, coo_mm, csr_matrix_mm, coo_matrix_mm, pattern_mm]
NUMBERS = ("values", "B")
# Every argument of every product that is a tensor.
ARGUMENTS = [
    *((multiply, name) for multiply in PRODUCTS for name in NUMBERS),
    (csr_mm, "crow_indices"),
    (csr_mm, "col_indices"),
    (coo_mm, "indices"),
]
GIVEN = {"crow_indices": CROW, "col_indices": COL, "indices": INDICES, "values": VALUES, "B": B}
OF_ALL = pytest.mark.parametrize(("multiply", "name"), ARGUMENTS)
OF_PLAIN = pytest.mark.parametrize(
    ("multiply", "name"), [pair for pair in ARGUMENTS if pair[0] in (csr_mm, coo_mm)]
)


def in_the_middle(tensor):
    """Give the same numbers as a view into the middle of others."""
    padded = torch.full([size + 2 for size in tensor.shape], 99, dtype=tensor.dtype)
    inner = padded[(slice(1, -1),) * tensor.dim()]
    return inner.copy_(tensor)


def backwards(tensor):
    """Give the same numbers with the strides of the transpose."""
    return tensor.T.contiguous().T if tensor.dim() == 2 else tensor.repeat_interleave(2)[::2]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.as_subclass(Subclass),
        lambda x: nn.Parameter(x, requires_grad=x.is_floating_point()),
        nn.Buffer,
        in_the_middle,
        backwards,
        lambda x: x.clone().share_memory_(),
        lambda x: torch.from_numpy(x.numpy()),
    ],
    ids=["subclass", "parameter", "buffer", "view", "strides", "shared memory", "numpy"],
)
@OF_ALL
@pytest.mark.of_kernels
def test_a_dense_tensor_of_any_kind_is_multiplied(multiply, name, change):
    assert_dense(torch.Tensor(multiply(**{name: change(GIVEN[name])})), PRODUCT)


@pytest.mark.parametrize("multiply", PRODUCTS)
def test_lazy_conjugates_and_negatives_are_what_they_stand_for(multiply):
    numbers = torch.complex(B, 1 - B)
    expected = (multiply(B=B).double(), multiply(B=1 - B).double())
    lazy = numbers.conj()
    assert lazy.is_conj()
    values = VALUES.to(torch.complex64)
    assert_dense(multiply(values=values.conj(), B=lazy), torch.complex(expected[0], -expected[1]))
    assert lazy.imag.is_neg()
    assert_dense(multiply(B=lazy.imag), -expected[1])


@OF_PLAIN
def test_shapes_alone_give_a_shape(multiply, name):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor(GIVEN[name])
        C = multiply(**{name: fake})
    assert (C.shape, C.dtype, C.device.type) == ((3, 2), torch.float32, "cpu")


def quantized(tensor):
    """Quantise numbers, or indices."""
    dtype = torch.qint8 if tensor.is_floating_point() else torch.qint32
    return torch.quantize_per_tensor(tensor.float(), 1.0, 0, dtype)


@pytest.mark.filterwarnings("ignore")  # PyTorch deprecates some of them
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (quantized, r"(must be|must have the same dtype).*, but received .*QInt"),
        (lambda x: x.bool(), r"(must be|must have the same dtype).*, but received .*Bool"),
        (lambda x: x.to(torch.uint16), r"but received .*UInt16"),
        (lambda x: x.to(torch.int8), r"but received .*Char"),
        (lambda x: x.to(torch.float8_e4m3fn), r"but received .*Float8_e4m3fn"),
        (lambda x: x.to(torch.complex32), r"but received .*ComplexHalf"),
        (lambda x: x.float().to_mkldnn(), r"must be a dense \(strided\) tensor, but received"),
        (
            lambda x: x.to_sparse(),
            r"must be a dense \(strided\) tensor, but received layout Sparse$",
        ),
        (lambda x: x.to("meta"), r"must be on the .*device.*, but received .*meta"),
        (lambda x: x.reshape(*x.shape, 1, 1), r"(must|should) (both )?(be|have)"),
        (lambda x: x.flatten()[0], r"(must|should) (both )?(be|have)"),
    ],
    ids=[
        *("quantised", "bool", "uint16", "int8", "float8", "complex32", "mkldnn", "sparse"),
        *("meta", "more dimensions", "scalar"),
    ],
)
@OF_PLAIN
def test_what_is_no_operand_is_refused_by_name(multiply, name, change, message):
    with pytest.raises((RuntimeError, ValueError), match=message) as caught:
        multiply(**{name: change(GIVEN[name])})
    # Of B with more dimensions, the last two are taken for a matrix that is too small.
    assert re.search(rf"\b({name}|indices|col_indices)\b", str(caught.value))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@OF_PLAIN
@pytest.mark.of_kernels
def test_nested_tensors_are_refused_by_the_dispatcher(multiply, name):
    nested = torch.nested.nested_tensor([GIVEN[name], GIVEN[name]])
    with pytest.raises(NotImplementedError, match="NestedTensorCPU"):
        multiply(**{name: nested})


WITHOUT_GRADIENT = {
    torch.int32: "Int",
    torch.int64: "Long",
    torch.uint8: "Byte",
    torch.bool: "Bool",
}


@pytest.mark.parametrize("dtype", WITHOUT_GRADIENT, ids=str)
@pytest.mark.parametrize("multiply", PRODUCTS)
def test_numbers_that_have_no_gradient_are_refused(multiply, dtype):
    names = "A and B" if multiply in (csr_matrix_mm, coo_matrix_mm) else "values and B"
    with pytest.raises(RuntimeError, match=f"^{names} {DTYPES} {WITHOUT_GRADIENT[dtype]}$"):
        multiply(values=VALUES.to(dtype), B=B.to(dtype))


@pytest.mark.parametrize(
    "given", [None, 5, [1.0], B.cpu().numpy(), "B"], ids=lambda x: type(x).__name__
)
@OF_PLAIN
def test_what_is_no_tensor_is_refused_by_name(multiply, name, given):
    message = f"^{name} must be a torch.Tensor, but received {type(given).__name__}$"
    with pytest.raises(ValueError, match=message):
        multiply(**{name: given})


@pytest.mark.parametrize("left", [0, 1, -1], ids=["freed", "one number", "all but one byte"])
@OF_ALL
@pytest.mark.of_kernels
def test_a_tensor_whose_memory_was_taken_away_is_refused(multiply, name, left):
    tensor = GIVEN[name].clone()
    whole = tensor.untyped_storage().nbytes()
    size = {0: 0, 1: tensor.itemsize, -1: whole - 1}[left]
    with pytest.raises(ValueError, match=rf"{name} must lie within its storage, but received"):
        # Sparse tensors hold the very tensor that they are made from.
        with_taken(multiply, name, tensor, size)


def with_taken(multiply, name, tensor, size):
    """Multiply with a tensor whose storage shrinks before the product looks at it."""
    if multiply is csr_matrix_mm and name == "values":
        A = torch.sparse_csr_tensor(CROW, COL, tensor, SIZE)
        tensor.untyped_storage().resize_(size)
        return spgrad.sparse_mm(A, B)
    if multiply is coo_matrix_mm and name == "values":
        A = torch.sparse_coo_tensor(INDICES, tensor, SIZE)
        tensor.untyped_storage().resize_(size)
        return spgrad.sparse_mm(A, B)
    tensor.untyped_storage().resize_(size)
    return multiply(**{name: tensor})
