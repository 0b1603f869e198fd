"""What all tests share: settings of PyTorch, the backend, and fixtures that put state back."""

import os

# Threads that wait for others sleep: tests run side by side, on fewer cores than they have threads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# A pool of processes that compile takes longer to start than the little that the tests compile.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import backends
import pytest
import torch

import spgrad

# The tests make malformed tensors on purpose. PyTorch warns unless one says so or asks for checks.
torch.sparse.check_sparse_tensor_invariants.disable()

# Files with tests of the products, which every backend must pass; the others are about the kernels
# of the CPU, or about no backend at all.
OF_EVERY_BACKEND = {
    "test_autograd",
    "test_errors",
    "test_gradients",
    "test_graphs",
    "test_heads",
    "test_hostile",
    "test_index_dtypes",
    "test_later_errors",
    "test_layouts_and_strides",
    "test_lstsq",
    "test_made_from_values",
    "test_malformed",
    "test_matmul",
    "test_memory",
    "test_odd_tensors",
    "test_operators",
    "test_parts_of_results",
    "test_pattern",
    "test_pattern_buffer",
    "test_product",
    "test_properties",
    "test_reduce",
    "test_sddmm",
    "test_softmax",
    "test_symmetric",
    "test_training",
    "test_transforms",
}


# The files that take longest, in the order in which processes side by side should start with them.
LONGEST = (
    "test_cpp_project",
    "test_digits",
    "test_limits",
    "test_nn",
    "test_documents",
    "test_processes",
    "test_processes_of_ranks",
    "test_comparison",
    "test_training",
    "test_lstsq",
    "test_pattern",
    "test_precision",
    "test_hostile",
    "test_kept_memory",
    "test_typing",
    "test_transforms",
    "test_instruction_sets",
    "test_operators",
    "test_memory",
    "test_vmap",
    "test_malformed",
)

KEPT = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--backend", choices=backends.NAMES, default="kernels", help=backends.__doc__)
    parser.addoption(
        "--steps", type=int, default=1000, help="steps of training over which memory must stay flat"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "long: shows what a shorter test does, at full size")
    config.addinivalue_line("markers", "of_kernels: holds for the kernels of the CPU only")
    config.addinivalue_line("markers", "timed: compares times, with nothing else running")
    config.stash[KEPT] = backends.use(config.getoption("backend"))


def pytest_collection_modifyitems(config, items):
    """Choose the tests of the backend, long ones only where `-m` asks for them, and sort them."""
    backend = config.getoption("backend")
    with_long = "long" in config.getoption("markexpr")
    missing = pytest.mark.skip(reason=f"no {backend} device")
    chosen, others = [], []
    for item in items:
        of_backend = backend == "kernels" or (
            item.path.stem in OF_EVERY_BACKEND and not item.get_closest_marker("of_kernels")
        )
        fits = of_backend and (with_long or not item.get_closest_marker("long"))
        (chosen if fits else others).append(item)
        if backends.is_missing(backend):
            item.add_marker(missing)
    rank = {file: place for place, file in enumerate(LONGEST)}
    items[:] = sorted(chosen, key=lambda item: rank.get(item.path.stem, len(LONGEST)))
    config.hook.pytest_deselected(items=others)


@pytest.fixture(scope="session")
def backend(request):
    """Name the backend that the tests run on."""
    return request.config.getoption("backend")


@pytest.fixture
def steps(request):
    """Give the number of steps over which memory must stay flat."""
    return request.config.getoption("steps")


@pytest.fixture
def use_instruction_set():
    """Choose the instruction set; the one before comes back."""
    before = spgrad.instruction_set()
    yield spgrad.use_instruction_set
    spgrad.use_instruction_set(before)


@pytest.fixture(params=spgrad.instruction_sets())
def instruction_set(request, use_instruction_set):
    """Each instruction set of this CPU in turn."""
    use_instruction_set(request.param)
    return request.param


@pytest.fixture
def set_threads():
    """Set the number of threads; the one before comes back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def group_of_one_process():
    """Give torch.distributed a group that only this process is in."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()
