"""Index arrays of every combination of int32 and int64, as SciPy and others make them."""

import pytest
import torch
from cases import BOTH_SIZES, EMPTY
from forms import PRODUCTS, Operators, assert_right, operands_for
from oracle import (
    BATCHED,
    PLAIN,
    assert_dense,
    gradient_of_B,
    gradient_of_values,
    make_sparse,
    product,
)
from pairs import pairwise
from profiles import allocated
from torch.autograd import gradcheck
from torch.func import vmap
from torch.library import opcheck

import spgrad

# Kind, and dtypes of crow_indices and col_indices, or of indices.
MIXED = {
    "wide offsets": ("csr64", (torch.int64, torch.int32)),
    "wide columns": ("csr64", (torch.int32, torch.int64)),
    "narrow, sorted": ("coalesced", (torch.int32,)),
    "narrow, unsorted": ("uncoalesced", (torch.int32,)),
}
SHAPES = {"plain": (PLAIN, 8, 3), "batched": (BATCHED, 24, 3), **EMPTY}


class Mixed(Operators):
    """The operators with the structure of a matrix in other index dtypes."""

    def __init__(self, mixed, size, entries=None):
        """Make the matrix, and take its structure."""
        kind, dtypes = MIXED[mixed]
        super().__init__(make_sparse(kind, size, entries))
        self.structure = tuple(x.to(dtype) for x, dtype in zip(self.structure, dtypes, strict=True))

    def mm(self, values, B):
        """Multiply by the public function."""
        if self.form == "coo":
            return spgrad.coo_mm(*self.structure, values, self.size, B)
        return spgrad.csr_mm(*self.structure, values, B)

    def pattern(self):
        """Make a pattern."""
        if self.form == "coo":
            return spgrad.Pattern.from_coo(*self.structure, self.size)
        return spgrad.Pattern.from_csr(*self.structure, self.size)


@pairwise(mixed=MIXED, shape=SHAPES)
def test_all_products_and_gradients_are_right(mixed, shape):
    size, entries, p = SHAPES[shape]
    call = Mixed(mixed, size, entries)
    A = call.A
    assert_right(call.mm, A, operands_for(A, p))
    assert_right(call.pattern().mm, A, operands_for(A, p))
    values, B, G = operands_for(A, p)
    assert_dense(call("mm_transposed", values, G), gradient_of_B(A, G))
    assert_dense(call("sddmm", G, B), gradient_of_values(A, B, G))
    assert all(map(torch.equal, call.pattern()._tensors, spgrad.Pattern(A)._tensors))


# opcheck itself asks for the gradient of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's forward mode
@pairwise(mixed=MIXED, size=BOTH_SIZES.values(), name=PRODUCTS)
def test_operators_keep_their_contract_with_pytorch(mixed, size, name):
    operator, arguments = Mixed(mixed, size).with_leaves(name)
    assert set(opcheck(operator, arguments).values()) == {"SUCCESS"}
    assert gradcheck(operator, arguments, check_forward_ad=True)


@pairwise(mixed=MIXED, size=BOTH_SIZES.values(), over=("values", "indices"))
def test_vmap_multiplies_the_items(mixed, size, over):
    call = Mixed(mixed, size)
    values, B, _ = operands_for(call.A)
    several = torch.stack([values, 2 * values])
    if over == "values":
        C = vmap(lambda v: call.mm(v, B))(several)
    else:
        other = Mixed(mixed, size)

        def multiply(structure, v):
            other.structure = structure
            return other.mm(v, B)

        C = vmap(multiply)([torch.stack([x, x]) for x in call.structure], several)
    assert_dense(C, torch.stack([product(call.A, B), 2 * product(call.A, B)]))


@pytest.mark.parametrize("mixed", MIXED)
def test_a_compiled_function_and_autocast_give_the_same(mixed):
    torch.compiler.reset()
    call = Mixed(mixed, PLAIN)
    A = call.A
    assert_right(torch.compile(call.mm, fullgraph=True, backend="aot_eager"), A, operands_for(A))
    values, B, _ = operands_for(A)
    with torch.autocast(B.device.type, torch.bfloat16):
        assert_dense(call.mm(values.float(), B.float()), product(A, B).bfloat16())


@pytest.mark.of_kernels
@pytest.mark.parametrize("mixed", MIXED)
def test_the_columns_are_not_copied(mixed):
    call = Mixed(mixed, (10, 2000), 10_000)
    values, B, G = operands_for(call.A, 1)
    made = max(allocated(lambda: call.mm(values, B)))
    if mixed == "narrow, unsorted":  # sorted by row, as pairs of 8 bytes, and no other copy
        assert made <= 8 * values.numel()
    else:
        assert made < values.numel()
    results = (G, values)
    assert max(allocated(lambda: call("sddmm", G, B))) <= max(8 * x.numel() for x in results)


FAR = 2**40
LAST = 2**31 - 1


@pytest.mark.parametrize(
    ("crow", "message"),
    [
        ([0, FAR, 3], "must not decrease"),
        ([FAR, 2, 3], "must start with 0"),
        ([2**32, 2, 3], "must start with 0"),
        ([0, 2, 2**32 + 3], "must end with the number of entries, 3"),
        ([0, 2, -FAR], "must not decrease"),
        ([0, 2**32 + 2, 3], "must not decrease"),
        ([0, LAST, 3], "must not decrease"),
        ([0, LAST + 1, LAST + 2], "must end with the number of entries, 3"),
    ],
)
@pytest.mark.parametrize("name", [*PRODUCTS, "pattern"])
def test_wide_offsets_that_narrow_ones_would_take_for_right_are_refused(name, crow, message):
    structure = (torch.tensor(crow), torch.tensor([0, 1, 2], dtype=torch.int32))
    values, X, Y = torch.ones(3), torch.ones(2, 1), torch.ones(3, 1)
    arguments = {
        "mm": (values, Y),
        "mm_transposed": (values, 3, X),
        "sddmm": (X, Y),
        "mm_backward": (values, Y, X),
        "pattern": (3,),
    }
    with pytest.raises(RuntimeError, match=message):
        getattr(torch.ops.spgrad, f"csr_{name}")(*structure, *arguments[name])
