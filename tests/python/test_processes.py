"""Threads, forks, signals and the end of the interpreter."""

import signal
from textwrap import dedent, indent

import pytest
from programs import output_of, run

# A problem large enough for several threads, and its results.
PROBLEM = """
import os, signal, sys, threading, time

torch.manual_seed(0)
torch.set_num_threads(2)
dense = torch.randn(3000, 3000) * (torch.rand(3000, 3000) < 0.01)
B = torch.randn(3000, 64)


def step(A, B):
    A, B = A.detach().requires_grad_(), B.detach().requires_grad_()
    C = spgrad.sparse_mm(A, B)
    C.sum().backward()
    values = A.grad.values() if A.layout == torch.sparse_csr else A.grad._values()
    return C.detach(), values, B.grad


def is_right(results):
    return all(torch.equal(*pair) for pair in zip(results, expected, strict=True))
"""
LAYOUTS = """
for layout in {layouts}:
    A = dense.to_sparse_csr() if layout == "csr" else dense.to_sparse()
    expected = step(A, B)
"""


def with_each(program, *layouts):
    """Make text that does the same with a matrix A of each layout, one after the other."""
    return LAYOUTS.format(layouts=layouts) + indent(program, "    ")


# With one thread, as in the workers of a DataLoader: OpenMP's threads are not in the child,
# so that PyTorch's own operators wait for them forever, too.
FORK = """
child = os.fork()
if child == 0:
    torch.set_num_threads(1)
    os._exit(0 if is_right(step(A, B)) else 1)
print(os.waitpid(child, 0)[1])
print(is_right(step(A, B)))
"""

WORKERS = """
class Products(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, factor):
        return spgrad.sparse_mm(A, factor * B)

for i, C in enumerate(torch.utils.data.DataLoader(Products(), batch_size=None, num_workers=2)):
    print(torch.equal(C, spgrad.sparse_mm(A, i * B)))
"""

THREADS = """
from concurrent.futures import ThreadPoolExecutor

leaf, count = A.detach().clone().requires_grad_(), 64
dense_leaf = B.clone().requires_grad_()

def work(_):
    spgrad.sparse_mm(leaf, dense_leaf).sum().backward()

with ThreadPoolExecutor(8) as pool:
    list(pool.map(work, range(count)))
    alone = list(pool.map(lambda _: is_right(step(A, B)), range(count)))
print(all(alone))
print(leaf.grad.layout == leaf.layout)
# Sums of one number 64 times over, in any order of the threads.
for total, one in ((leaf.grad.values(), expected[1]), (dense_leaf.grad, expected[2])):
    print(torch.allclose(total, count * one, rtol=1e-4, atol=1e-3))
"""

INTERRUPT = """
# A shell that starts the tests in the background has the signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    while True:
        step(A, B)
except KeyboardInterrupt:
    print(is_right(step(A, B)))
"""

# Each product meets good indices, bad ones, or a mixture of both.
RACE = """
if layout == "csr":
    crow, col = A.crow_indices(), A.col_indices()
    held = [crow, col]
else:
    A = torch.sparse_coo_tensor(A.indices(), A.values(), A.shape)
    held = [A._indices()]
good = [tensor.clone() for tensor in held]
far = 2**40
done = threading.Event()

def spoil():
    random = torch.Generator().manual_seed(0)
    while not done.is_set():
        for tensor, copy in zip(held, good):
            flat = tensor.data.view(-1)
            places = torch.randint(len(flat), (50,), generator=random)
            # .data: without a new version, as memory shared with another process would change
            flat[places] = torch.randint(-far, far, (50,), generator=random)
            tensor.data.copy_(copy)

spoiler = threading.Thread(target=spoil, daemon=True)
spoiler.start()
outcomes = {"product": 0, "error": 0}
start = time.monotonic()
while time.monotonic() - start < 2 or min(outcomes.values()) == 0:
    try:
        step(A, B)
    except RuntimeError as error:
        assert "must" in str(error), error
        outcomes["error"] += 1
    else:
        outcomes["product"] += 1
done.set()
spoiler.join()
print(is_right(step(A, B)))
"""


# What each prints of CSR and of COO. Those that fork come first.
CHECKS = {
    "a forked process multiplies after its parent did": (FORK, ["0", "True"]),
    "workers of a data loader multiply": (WORKERS, ["True"] * 6),
    "backward passes of many threads meet in one leaf": (THREADS, ["True"] * 4),
    "a keyboard interrupt ends the loop and nothing else": (INTERRUPT, ["True"]),
    "indices that another thread changes all the time lead nowhere": (RACE, ["True"]),
}


@pytest.fixture(scope="module")
def said():
    """Run all of them in one process, and give what each prints."""
    parts = ["print('next')" + with_each(text, "csr", "coo") for text, _ in CHECKS.values()]
    words = " ".join(output_of("\n".join([PROBLEM, *parts])))
    return dict(zip(CHECKS, words.split("next")[1:], strict=True))


@pytest.mark.parametrize("check", CHECKS)
def test_in_one_process(said, check):
    assert said[check].split() == 2 * CHECKS[check][1]


OF_PYTORCH = "(B.detach().requires_grad_() @ B.T).sum().backward()"


@pytest.mark.parametrize(
    ("layout", "work"), [("csr", "step(A, B)"), ("coo", "step(A, B)"), ("csr", OF_PYTORCH)]
)
def test_the_interpreter_may_end_while_threads_multiply(layout, work):
    # Python ends a thread that comes back to a finished interpreter by unwinding its stack, and
    # PyTorch's bindings cannot be unwound: the process may abort at its very end, with PyTorch's
    # operators (the second case) as with ours. It may not hang or read freed memory.
    program = f"""
    def work():
        while True:
            {work}

    for _ in range(3):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(0.5)
    print("ends", flush=True)
    """
    done = run(PROBLEM + with_each(dedent(program), layout), seconds=60)
    assert done.stdout.split() == ["ends"]
    assert done.returncode in (0, -signal.SIGABRT), done.stderr


# What enters Python while a thread makes nodes, or gives nodes back with the interpreter's lock
# held: anomaly mode, dispatch modes, saved-tensor hooks, and what the garbage collector finds.
ENTERING_PYTHON = """
import gc, itertools, warnings
from torch.utils._python_dispatch import TorchDispatchMode

warnings.simplefilter("ignore")
leaf = torch.eye(20).to_sparse({layout}).requires_grad_()
small = torch.ones(20, 3)


class Pass(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        return function(*arguments, **(options or {{}}))


class Fail(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise ValueError


def in_anomaly_mode():
    with torch.autograd.detect_anomaly(check_nan=False):
        try:
            Fail.apply(spgrad.sparse_mm(leaf, small)).sum().backward()
        except ValueError as error:  # with its frame, and so with the graph
            ring = [error]
            ring.append(ring)


def in_a_dispatch_mode():
    with Pass():
        C = spgrad.sparse_mm(leaf, small)
    C.sum().backward()


def with_saved_tensor_hooks():
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda saved: saved):
        spgrad.sparse_mm(leaf, small).sum().backward()


def collecting():
    gc.collect(0)


def repeat(work):
    for _ in range(50):
        work()


kinds = [in_anomaly_mode, in_a_dispatch_mode, with_saved_tensor_hooks, collecting]
for kind in kinds:
    repeat(kind)
for pair in itertools.combinations_with_replacement(kinds, 2):
    threads = [threading.Thread(target=repeat, args=(work,)) for work in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(leaf.grad.to_dense().trace().item() > 0)

torch.autograd.set_detect_anomaly(False)  # two threads in anomaly mode may leave it on
done = threading.Event()


def forward():
    while not done.is_set():
        spgrad.sparse_mm(leaf, small)


others = threading.Thread(target=forward)
others.start()
for _ in range(60):
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        spgrad.sparse_mm(leaf, small).sum().backward()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
done.set()
others.join()
print(True)
"""


@pytest.mark.parametrize("layout", ["torch.sparse_csr", "torch.sparse_coo"])
def test_nobody_waits_for_a_lock_that_is_held_while_python_is_entered(layout):
    program = ENTERING_PYTHON.format(layout="layout=" + layout)
    assert output_of("import os, threading\n" + program, seconds=120) == ["True"] * 2
