"""Products whose messages are averaged or compared in each row, beside loops over the entries."""

import math
import re
from functools import partial

import pytest
import torch
from forms import Operators, maker_of, matrix_of, product_of
from oracle import (
    BATCHED,
    PLAIN,
    assert_pattern,
    integers,
    positions_of,
    seeded,
    values_of,
)
from pairs import pairwise
from torch.autograd import gradcheck, gradgradcheck
from torch.func import vmap
from torch.library import opcheck

import spgrad

REDUCTIONS = ("mean", "amax", "amin")
KINDS = ("coalesced", "uncoalesced", "csr32", "csr64")
FORMS = (*KINDS, "pattern of uncoalesced", "pattern of csr32")
REAL = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def first_best(messages, reduce):
    """Find the message that wins, in Python's own numbers."""
    best = 0
    for number, message in enumerate(messages):
        if math.isnan(messages[best]):
            break
        beyond = message > messages[best] if reduce == "amax" else message < messages[best]
        if beyond or math.isnan(message):
            best = number
    return best


def reduced(A, values, B, reduce):
    """Reduce the messages of each row of one matrix or batch; differentiable, in float64."""
    *batch, rows, _ = A.shape
    *items, row, column = positions_of(A)
    item = items[0] if items else torch.zeros_like(row)
    B = B.reshape(-1, *B.shape[-2:])
    messages = values.reshape(-1, 1) * B[item, column]
    results = []
    for group in range(math.prod(batch) * rows):
        members = (item * rows + row == group).nonzero().flatten()
        of_row = messages[members]
        if len(members) == 0:
            results.append(messages.new_zeros(B.shape[-1]))
        elif reduce == "mean":
            results.append(of_row.sum(0) / len(members))
        else:
            winners = [first_best(of_row[:, c].tolist(), reduce) for c in range(B.shape[-1])]
            # Alone: zero gradients of other messages, times infinity, would be NaN.
            chosen = members[winners]
            from_B = B[item[chosen], column[chosen], range(B.shape[-1])]
            results.append(values.flatten()[chosen] * from_B)
    return torch.stack(results).reshape(*batch, rows, B.shape[-1])


def expected_of(A, values, B, reduce):
    """The same for all heads."""
    heads = torch.broadcast_shapes(
        values.shape[: values.dim() - values_of(A).dim()], B.shape[: B.dim() - A.dim()]
    )
    if not heads:
        return reduced(A, values, B, reduce)
    values = values.expand(*heads, *values_of(A).shape).flatten(0, len(heads) - 1)
    B = B.expand(*heads, *B.shape[B.dim() - A.dim() :]).flatten(0, len(heads) - 1)
    results = [reduced(A, v, b, reduce) for v, b in zip(values, B, strict=True)]
    return torch.stack(results).unflatten(0, heads)


def with_gradients(multiply, values, B, G):
    """Compute a product and its gradients."""
    values, B = values.detach().requires_grad_(), B.detach().requires_grad_()
    C = multiply(values, B)
    return (C.detach(), *torch.autograd.grad(C, (values, B), G.to(C.dtype)))


@pairwise(
    form=FORMS,
    size=(PLAIN, BATCHED),
    reduce=REDUCTIONS,
    heads=(((), ()), ((2,), (2,)), ((), (3,)), ((2, 1), (3,))),
    p=(1, 3, 20),
)
def test_messages_are_reduced_and_the_first_of_equals_gets_the_gradient(
    form, size, reduce, heads, p
):
    A = matrix_of(form, size)
    values = integers(*heads[0], *values_of(A).shape, seed=3)
    B = integers(*heads[1], *size[:-2], size[-1], p, seed=4)
    multiply = product_of(form, A, reduce=reduce)
    G = integers(*multiply(values, B).shape, seed=5)
    ours = with_gradients(multiply, values, B, G)
    theirs = with_gradients(partial(expected_of, A, reduce=reduce), values, B, G)
    assert ours[0].is_contiguous()
    torch.testing.assert_close(ours, theirs, rtol=1e-12 if reduce == "mean" else 0, atol=1e-12)


@pairwise(kind=KINDS, size=(PLAIN, BATCHED), reduce=REDUCTIONS)
def test_the_gradient_of_a_sparse_matrix_is_sparse(kind, size, reduce):
    A = matrix_of(kind, size)
    B = integers(*size[:-2], size[-1], 3, seed=4).requires_grad_()
    G = integers(*size[:-1], 3, seed=5)
    theirs = with_gradients(partial(expected_of, A, reduce=reduce), values_of(A), B, G)
    A.requires_grad_()
    C = spgrad.sparse_mm(A, B, reduce=reduce)
    C.backward(G)
    assert_pattern(A.grad, A)
    ours = (C.detach(), values_of(A.grad), B.grad)
    torch.testing.assert_close(ours, theirs, rtol=1e-12 if reduce == "mean" else 0, atol=0)


SPECIAL = (math.nan, math.inf, -math.inf, -0.0, 0.0, 1.0, -1.0)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("reduce", ["amax", "amin"])
@pytest.mark.parametrize("form", ["uncoalesced", "csr32"])
@pytest.mark.parametrize("columns", [1, 9])
def test_nan_wins_and_of_equal_zeros_the_first(columns, form, reduce, dtype):
    A = matrix_of(form, (40, 5), 100)
    generator = seeded(0)
    special = torch.tensor(SPECIAL)
    values = special[torch.randint(7, values_of(A).shape, generator=generator)]
    B = special[torch.randint(1, 7, (5, columns), generator=generator)]
    G = integers(40, columns, seed=5)
    ours = with_gradients(product_of(form, A, reduce=reduce), values.to(dtype), B.to(dtype), G)
    oracle = partial(expected_of, A, reduce=reduce)
    theirs = with_gradients(oracle, values.double(), B.double(), G)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(ours[0].signbit() | ours[0].isnan(), theirs[0].signbit() | theirs[0].isnan())


def test_rows_without_entries_are_zero_and_explicit_zeros_are_messages():
    crow, col = torch.tensor([0, 0, 1, 3]), torch.tensor([0, 1, 0])
    values = torch.tensor([0.0, -1.0, -2.0])
    for reduce, last in (("amax", -1.0), ("amin", -2.0), ("mean", -1.5)):
        C = spgrad.csr_mm(crow, col, values, torch.ones(2, 1), reduce=reduce)
        assert C.flatten().tolist() == [0.0, 0.0, last]
    zero = torch.tensor([0, 2]), torch.tensor([0, 1]), torch.tensor([0.0, -1.0]), torch.ones(2, 1)
    assert spgrad.csr_mm(*zero, reduce="amax").item() == 0
    assert spgrad.csr_mm(*zero[:3], torch.ones(2), reduce="mean").tolist() == [-0.5]


@pytest.mark.parametrize("reduce", ["amax", "amin"])
def test_products_of_16_bit_numbers_are_compared_before_they_are_rounded(reduce):
    # 0.99994, which becomes 1 when it is rounded, and 1.
    values = torch.tensor([1.0078125, 1.0], dtype=torch.bfloat16)
    values = -values if reduce == "amin" else values
    B = torch.tensor([[0.9921875], [1.0]], dtype=torch.bfloat16)
    values.requires_grad_()
    structure = torch.tensor([0, 2]), torch.tensor([0, 1])
    spgrad.csr_mm(*structure, values, B, reduce=reduce).sum().backward()
    assert values.grad.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_16_bit_numbers_are_reduced_in_float32(reduce, dtype):
    A = matrix_of("csr32", (6, 30), 100)
    generator = seeded(1)
    values, B, G = (
        torch.randn(*shape, generator=generator).to(dtype)
        for shape in (values_of(A).shape, (30, 70), (6, 70))
    )
    ours = with_gradients(product_of("csr32", A, reduce=reduce), values, B, G)
    assert all(result.dtype == dtype for result in ours)
    oracle = partial(expected_of, A, reduce=reduce)
    theirs = with_gradients(oracle, values.double(), B.double(), G.double())
    tolerance = 4 * torch.finfo(dtype).eps
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=3 * tolerance)


def test_a_mean_of_float16_does_not_overflow():
    values = torch.full((100,), 1000.0, dtype=torch.float16)
    structure = torch.tensor([0, 100]), torch.zeros(100, dtype=torch.int64)
    C = spgrad.csr_mm(*structure, values, torch.ones(1, 1, dtype=torch.float16), reduce="mean")
    assert C.item() == 1000


def test_the_mean_of_complex_numbers_is_theirs():
    A = matrix_of("uncoalesced", dtype=torch.complex128)
    B = integers(5, 3, dtype=torch.complex128, seed=4)
    theirs = expected_of(A, values_of(A), B, "mean")
    torch.testing.assert_close(spgrad.sparse_mm(A, B, reduce="mean"), theirs)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's forward mode
@pairwise(form=FORMS, size=(PLAIN, BATCHED), reduce=REDUCTIONS)
def test_derivatives_of_any_order_are_right(form, size, reduce):
    A = matrix_of(form, size)
    generator = seeded(2)
    values = torch.randn(2, *values_of(A).shape, generator=generator, dtype=torch.float64)
    B = torch.randn(*size[:-2], size[-1], 3, generator=generator, dtype=torch.float64)
    operands = (values.requires_grad_(), B.requires_grad_())
    multiply = product_of(form, A, reduce=reduce)
    assert gradcheck(multiply, operands, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(multiply, operands, fast_mode=True)


def test_results_have_the_same_bits_for_any_number_of_threads(set_threads):
    # Rows that are cut into blocks, rows without entries, ties, and NaN in a late block.
    lengths = torch.tensor([9000, 0, 3, 20_000, *[40] * 500])
    crow = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    entries = int(crow[-1])
    generator = seeded(3)
    col = torch.randint(700, (entries,), generator=generator)
    values = torch.randint(-9, 10, (entries,), generator=generator).float()
    values[8000] = torch.nan
    B = torch.randn(700, 50, generator=generator)
    G = torch.randn(len(lengths), 50, generator=generator)
    for reduce in ("amax", "amin"):
        multiply = partial(spgrad.csr_mm, crow, col, reduce=reduce)
        first = None
        for threads in (1, 2, 3, 8):
            set_threads(threads)
            results = [x.view(torch.int32) for x in with_gradients(multiply, values, B, G)]
            first = first or results
            assert all(map(torch.equal, results, first))
        C = multiply(values, B)
        assert C[0].isnan().all()
        assert not C[1].any()
        for row in (2, 3, 100):
            places = slice(crow[row], crow[row + 1])
            messages = values[places, None] * B[col[places]]
            assert torch.equal(C[row], getattr(messages, reduce)(0))


@pytest.mark.parametrize("form", ["uncoalesced", "csr32", "pattern of csr32"])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_vmap_gives_what_each_item_gives(form, reduce):
    A = matrix_of(form)
    multiply = product_of(form, A, reduce=reduce)
    values = integers(2, *values_of(A).shape, seed=3)
    B = integers(5, 2, 4, seed=4)
    G = integers(2, 4, 4, seed=5)

    def both(values, B, G):
        return with_gradients_of_func(multiply, values, B, G)

    ours = vmap(both, in_dims=(0, 1, 0))(values, B, G)
    items = zip(values, B.unbind(1), G, strict=True)
    theirs = [with_gradients(multiply, *item) for item in items]
    for one, other in zip(ours, zip(*theirs, strict=True), strict=True):
        torch.testing.assert_close(one, torch.stack(other))
    shared = vmap(multiply, in_dims=(None, 1))(values[0], B)
    torch.testing.assert_close(shared, torch.stack([multiply(values[0], b) for b in B.unbind(1)]))


def with_gradients_of_func(multiply, values, B, G):
    """Compute a product and its gradients by functions of torch.func."""
    C, pull = torch.func.vjp(multiply, values, B)
    return (C, *pull(G))


def test_vmap_over_structures_gives_what_each_gives():
    crow = torch.tensor([[0, 1, 3], [0, 3, 3]])
    col = torch.tensor([[1, 0, 2], [2, 1, 0]])
    values, B = integers(2, 3, seed=1), integers(2, 3, 4, seed=2)
    multiply = partial(spgrad.csr_mm, reduce="amax")
    ours = vmap(multiply)(crow, col, values, B)
    theirs = [multiply(*item) for item in zip(crow, col, values, B, strict=True)]
    assert torch.equal(ours, torch.stack(theirs))


@pytest.mark.parametrize("reduce", ["mean", "amax"])
def test_compiled_functions_give_the_same(reduce):
    torch.compiler.reset()
    A = matrix_of("csr32")
    multiply = product_of("csr32", A, reduce=reduce)
    operands = integers(*values_of(A).shape, seed=3), integers(5, 3, seed=4), integers(4, 3, seed=5)
    compiled = torch.compile(multiply, fullgraph=True, backend="aot_eager")
    assert all(
        map(torch.equal, with_gradients(compiled, *operands), with_gradients(multiply, *operands))
    )


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_autocast_and_tensors_without_data(reduce):
    A = matrix_of("csr32", dtype=torch.float32)
    multiply, values, B = (
        product_of("csr32", A, reduce=reduce),
        values_of(A),
        integers(5, 3).float(),
    )
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        C = multiply(values, B)
    assert C.dtype == torch.bfloat16
    assert torch.equal(C, multiply(values.bfloat16(), B.bfloat16()))
    without = [x.to("meta") for x in (A.crow_indices(), A.col_indices(), values, B)]
    C = spgrad.csr_mm(*without, reduce=reduce)
    assert (C.device.type, C.shape, C.dtype) == ("meta", (4, 3), torch.float32)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(
    "name", ["mm_extremum", "selected_mm", "selected_mm_transposed", "selected_sddmm"]
)
@pytest.mark.parametrize("form", ["csr", "coo", "pattern"])
def test_operators_keep_their_contract_with_pytorch(form, name):
    A = matrix_of("csr64" if form == "csr" else "uncoalesced")
    operators = Operators(A, form)
    values, B, G = values_of(A).clone(), integers(5, 3, seed=4), integers(4, 3, seed=5)
    _, winners = operators("mm_extremum", values, B, True)
    operands = {
        "mm_extremum": (values, B, True),
        "selected_mm": (values, B, winners),
        "selected_mm_transposed": (values, G, winners),
        "selected_sddmm": (G, B, winners),
    }[name]
    leaves = [x.requires_grad_() if x is not winners and x is not True else x for x in operands]
    outcomes = opcheck(operators.operator(name), operators.arguments(name, *leaves))
    assert set(outcomes.values()) == {"SUCCESS"}


def test_numbers_that_no_entry_has_stand_for_no_winner():
    crow, col, values = torch.tensor([0, 1, 3]), torch.tensor([1, 0, 1]), torch.tensor([2.0, 3, 4])
    B = torch.tensor([[1.0, 10.0, 100.0], [5.0, 50.0, 500.0]])
    winners = torch.tensor([[0, -1, 1], [1, 2, -(2**31)]], dtype=torch.int32)
    selected = torch.ops.spgrad.csr_selected_mm(crow, col, values, B, winners)
    assert selected.tolist() == [[10.0, 0.0, 0.0], [20.0, 0.0, 0.0]]


def test_what_is_not_accepted_is_refused():
    A = matrix_of("csr32")
    structure, values, B = (A.crow_indices(), A.col_indices()), values_of(A), integers(5, 3)
    names = re.escape("reduce must be 'sum', 'mean', 'amax' or 'amin', but received 'max'")
    pattern = spgrad.Pattern(A)
    for multiply in (partial(spgrad.sparse_mm, A), partial(pattern.mm, values)):
        with pytest.raises(ValueError, match=names):
            multiply(B, reduce="max")
    for reduce in ("amax", "amin"):
        with pytest.raises(RuntimeError, match=r"must be real for .* but received ComplexDouble"):
            spgrad.csr_mm(*structure, values + 0j, B + 0j, reduce=reduce)
    for reduce in REDUCTIONS:
        with pytest.raises(RuntimeError, match="values and B must have the same dtype"):
            spgrad.csr_mm(*structure, values.half(), B.float(), reduce=reduce)
        with pytest.raises(ValueError, match="B must have 5 rows"):
            pattern.mm(values, B[1:], reduce=reduce)
    select = torch.ops.spgrad.csr_selected_mm
    winners = torch.zeros(4, 3, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="winners must be int32, but received Long"):
        select(*structure, values, B, winners.long())
    with pytest.raises(ValueError, match="winners must have 4 rows"):
        select(*structure, values, B, winners[1:])
    with pytest.raises(ValueError, match="winners must have the columns of B"):
        select(*structure, values, B, winners[:, 1:])
    with pytest.raises(ValueError, match="leading dimensions of winners and values and B"):
        select(*structure, values.expand(2, -1), B, winners.expand(3, 4, 3))


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("p", [0, 3])
def test_indices_out_of_bounds_are_refused(reduce, p):
    values, B = torch.ones(3), torch.ones(2, p)
    for index in (2, -1, 2**40):
        with pytest.raises(RuntimeError, match="must be in"):
            spgrad.csr_mm(
                torch.tensor([0, 1, 3]), torch.tensor([1, index, 0]), values, B, reduce=reduce
            )
        with pytest.raises(RuntimeError, match="must be in"):
            spgrad.coo_mm(
                torch.tensor([[1, 0, 1], [1, index, 0]]), values, (2, 2), B, reduce=reduce
            )
    with pytest.raises(RuntimeError, match="must end with the number of entries"):
        spgrad.csr_mm(torch.tensor([0, 1, 4]), torch.tensor([1, 0, 0]), values, B, reduce=reduce)


@pytest.mark.parametrize("name", ["selected_mm", "selected_mm_transposed", "selected_sddmm"])
def test_products_of_winners_check_the_indices_that_they_use(name):
    spoilt = torch.sparse_csr_tensor(
        torch.tensor([0, 1, 3]), torch.tensor([1, 0, 0]), torch.ones(3), (2, 2)
    )
    operators = Operators(spoilt)
    operators.structure = (torch.tensor([0, 1, 3]), torch.tensor([1, 2**40, 0]))
    first = torch.ones(2, 3) if name == "selected_sddmm" else torch.ones(3)
    winners = torch.zeros(2, 3, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="must be in"):
        operators(name, first, torch.ones(2, 3), winners)


@pytest.mark.parametrize("kind", ["coalesced", "csr32"])
def test_gradients_reach_values_that_a_constructor_took(kind):
    A = matrix_of(kind)
    make = maker_of(kind, A)
    values, B, G = values_of(A).clone(), integers(5, 3, seed=4), integers(4, 3, seed=5)
    ours = with_gradients(
        lambda values, B: spgrad.sparse_mm(make(values), B, reduce="amax"), values, B, G
    )
    theirs = with_gradients(partial(expected_of, A, reduce="amax"), values, B, G)
    assert all(map(torch.equal, ours, theirs))
