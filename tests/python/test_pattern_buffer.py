"""A pattern as a part of a module: it moves, is copied, saved and loaded as the module is."""

import copy

import pytest
import torch
from cases import BOTH_FORMS, BOTH_SIZES, SIZES
from copies import pickled, through_a_file
from forms import assert_right
from oracle import KINDS, PLAIN, make_sparse, values_of
from pairs import pairwise
from torch import nn

import spgrad
from spgrad.nn import PatternBuffer

NAMES = ["row_offsets", "row_entries", "column_offsets", "column_entries"]


class Graph(nn.Module):
    """A module with a pattern."""

    def __init__(self, A):
        """Copy the pattern of A."""
        super().__init__()
        self.edges = PatternBuffer(spgrad.Pattern(A))

    def forward(self, values, B):
        """Multiply."""
        return self.edges(values, B)


def loaded(module):
    """Load the state into a module with another pattern of as many entries."""
    other = copy.deepcopy(module)
    for buffer in other.buffers():
        buffer.zero_()
    other.load_state_dict(module.state_dict())
    return other


def from_meta(module):
    """Load the state into a module without data."""
    other = copy.deepcopy(module).to("meta")
    other.load_state_dict(module.state_dict(), assign=True)
    return other


def converted(module):
    """Convert the parameters, of which a pattern is none."""
    return module.half().to(torch.get_default_device())


@pairwise(
    kind=KINDS,
    size=BOTH_SIZES.values(),
    change=(converted, copy.deepcopy, through_a_file, loaded, from_meta),
)
def test_products_are_those_of_the_pattern_wherever_the_module_went(kind, size, change):
    A = make_sparse(kind, size)
    module = change(Graph(A))
    assert [name.partition(".")[2] for name in module.state_dict()] == NAMES
    assert (module.edges.pattern.shape, module.edges.pattern.values_shape) == (
        A.shape,
        values_of(A).shape,
    )
    assert_right(module, A)
    assert_right(module.edges.pattern.mm, A)


@SIZES
@BOTH_FORMS
def test_a_module_on_another_device_has_its_pattern_there(kind, size):
    A = make_sparse(kind, size)
    module = Graph(A).to("meta")
    assert module.edges.pattern.device.type == "meta"
    *batch, n, m = size
    B = torch.ones(*batch, m, 2, device="meta", dtype=torch.float64)
    assert module(values_of(A).to("meta"), B).shape == (*batch, n, 2)


def test_what_is_loaded_does_not_reach_the_pattern_that_it_was_made_from():
    A = make_sparse("csr32", PLAIN)
    pattern = spgrad.Pattern(A)
    buffer = PatternBuffer(pattern)
    for tensor in buffer.buffers():
        tensor.zero_()
    assert_right(pattern.mm, A)
    assert_right(PatternBuffer(pattern.T).pattern.T.mm, A)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_that_does_not_fit_or_is_hostile_is_refused(name):
    module = Graph(make_sparse("csr32", PLAIN))
    state = module.state_dict()
    key = f"edges.{name}"
    with pytest.raises(RuntimeError, match=f"size mismatch for {key}"):
        module.load_state_dict(state | {key: state[key][1:]})
    with pytest.raises(RuntimeError, match=f'Missing key.*"{key}"'):
        module.load_state_dict({other: state[other] for other in state if other != key})
    module.load_state_dict(state | {key: torch.full_like(state[key], 2**31 - 1)})
    values, B = torch.ones(8, requires_grad=True), torch.ones(5, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="must be those that csr_pattern or coo_pattern made"):
        module(values, B).sum().backward()


@BOTH_FORMS
def test_compiled_without_graph_breaks_it_is_the_same(kind):
    torch.compiler.reset()
    A = make_sparse(kind, PLAIN)
    assert_right(torch.compile(Graph(A), fullgraph=True, backend="aot_eager"), A)


def test_one_made_in_inference_mode_can_be_trained_with():
    A = make_sparse("csr32", PLAIN)
    with torch.inference_mode():
        module = Graph(A)
    assert_right(module, A)


def test_what_is_no_pattern_is_refused():
    A = make_sparse("csr32", PLAIN)
    with pytest.raises(ValueError, match=r"pattern must be a spgrad.Pattern, but received Tensor"):
        PatternBuffer(A)
    assert repr(Graph(A)).count("PatternBuffer(shape=(4, 5), nnz=8)") == 1
    assert pickled(Graph(A)).edges.pattern.nnz == 8
