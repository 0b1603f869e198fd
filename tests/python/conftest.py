"""What all tests share: settings of PyTorch, and fixtures that put global state back."""

import pytest
import torch

import spgrad

# The tests make malformed tensors on purpose. PyTorch warns unless one says so or asks for checks.
torch.sparse.check_sparse_tensor_invariants.disable()


@pytest.fixture(params=spgrad.instruction_sets())
def instruction_set(request):
    """Each instruction set of this CPU in turn; the one before comes back."""
    before = spgrad.instruction_set()
    spgrad.use_instruction_set(request.param)
    yield request.param
    spgrad.use_instruction_set(before)


@pytest.fixture
def set_threads():
    """Set the number of threads; the one before comes back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
