"""The memory of large results, which later results take over."""

from inspect import getsource
from pathlib import Path

import pytest
import torch
from profiles import allocated
from programs import run

import spgrad

SMAPS = Path("/proc/self/smaps_rollup")
LEAST = 4 << 20  # bytes from which on memory is kept


@pytest.fixture(autouse=True)
def nothing_is_kept():
    spgrad.empty_cache()
    yield
    spgrad.empty_cache()


def result(size=LEAST, value=1.0):
    """Make a result of so many bytes, all of whose elements have one value."""
    columns = 64
    rows = -(-size // (4 * columns))
    crow = torch.arange(rows + 1)
    col = torch.zeros(rows, dtype=torch.int64)
    return spgrad.csr_mm(crow, col, torch.full((rows,), value), torch.ones(1, columns))


def test_a_large_result_takes_the_memory_of_a_freed_one():
    place = result(value=1.0).data_ptr()
    again = result(value=2.0)
    assert again.data_ptr() == place
    assert again.eq(2).all()


def test_results_that_are_in_use_are_left_alone():
    results = [result(value=float(i)) for i in range(5)]
    del results[3]
    results += [result(value=float(i)) for i in (5, 6)]
    assert len({r.data_ptr() for r in results}) == len(results)
    for r, value in zip(results, (0, 1, 2, 4, 5, 6), strict=True):
        assert r.eq(value).all()


def test_a_view_keeps_the_memory_of_its_result():
    view = result(value=1.0)[5:6]
    result(value=2.0)
    assert view.eq(1).all()


@pytest.mark.parametrize("size", [LEAST * 3 // 4, LEAST * 3, LEAST * 9])
def test_memory_that_is_too_small_or_wastes_a_quarter_is_not_taken(size):
    first = result(2 * LEAST)
    place = first.data_ptr()
    del first
    other = result(size)
    assert other.data_ptr() != place
    assert result(2 * LEAST - LEAST // 4).data_ptr() == place


def test_the_smallest_memory_that_fits_is_taken():
    large, small = result(int(2.3 * LEAST)), result(int(2.1 * LEAST))
    place = small.data_ptr()
    del small, large
    assert result(2 * LEAST).data_ptr() == place


def test_a_result_can_grow_and_shrink():
    tensor = result(value=3.0)
    count = tensor.numel()
    tensor.resize_(2 * count)
    tensor[count:] = 4.0
    assert tensor[:count].eq(3).all()
    tensor.untyped_storage().resize_(0)
    tensor.untyped_storage().resize_(4 * count)
    tensor.resize_(count).fill_(5.0)
    assert tensor.eq(5).all()


def test_a_result_can_be_shared_and_cloned_lazily():
    tensor = result(value=1.0)
    clone = torch._lazy_clone(tensor)
    tensor.add_(1)
    assert clone.eq(1).all()
    clone.add_(2)
    assert tensor.eq(2).all()
    other = torch.from_dlpack(tensor)
    tensor = tensor.clone()
    result(value=3.0)
    assert other.eq(2).all()
    other.share_memory_()
    result(value=4.0)
    assert other.is_shared()
    assert other.eq(2).all()


@pytest.mark.parametrize("size", [LEAST, LEAST + 4 * 64])
def test_results_are_aligned_as_those_of_pytorch(size):
    for _ in range(2):  # fresh memory, then kept memory
        assert result(size).data_ptr() % 64 == 0


def test_the_profiler_sees_memory_as_used_only_while_a_result_has_it():
    result()
    sizes = [size for size in allocated(result) if abs(size) >= LEAST]
    assert sizes == [LEAST, -LEAST]


RESIDENT = f"""
from pathlib import Path

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

MB = 1 << 20
LEAST = {LEAST}
SMAPS = Path("{SMAPS}")

{getsource(result)}
result()
spgrad.empty_cache()
"""


# What a process prints, whose memory no other test has touched.
PROGRAM = """
import os

before = resident()
result(256 * MB)
kept = resident() - before
spgrad.empty_cache()
print("given back by empty_cache:", kept > 200 * MB, resident() - before < 32 * MB)

if "LazyFree:" in SMAPS.read_text():
    def lent():
        lines = SMAPS.read_text().splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith("LazyFree:"))
        return int(kilobytes) * 1024

    used = [result(64 * MB), result(64 * MB)]
    before = lent()
    freed = result(64 * MB)
    used.append(result(64 * MB))
    del freed
    print("lent to the system:", 62 * MB < lent() - before <= 64 * MB)
    del used
    spgrad.empty_cache()

before = resident()
result(256 * MB)
for _ in range(300):
    result(LEAST)
print("given back without use:", resident() - before < 64 * MB)
spgrad.empty_cache()

most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8
before = resident()
result(most // 256 * 256 + LEAST)
print("too much for an eighth of the machine:", resident() - before < 64 * MB)
spgrad.empty_cache()

def advised():  # parts of the memory for which huge pages were asked
    return Path("/proc/self/smaps").read_text().count(" hg")

before = advised()
results = [result(size) for size in (MB, 4 * MB, 16 * MB, 40 * MB)]
print("advice on huge pages:", advised() > before)
del results
spgrad.empty_cache()
print("advice withdrawn:", advised() == before)

torch.set_num_threads(1)
place = result(LEAST, 1.0).data_ptr()
child = os.fork()
if child == 0:
    value = result(LEAST, 2.0)
    os._exit(0 if value.eq(2).all() and value.data_ptr() == place else 1)
mine = result(LEAST, 3.0)
went_well = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("a child process goes on:", went_well, mine.eq(3).all().item())
"""


@pytest.fixture(scope="module")
def said():
    """Run the program, and give its lines by their names."""
    done = run(RESIDENT + PROGRAM)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(line.split(":") for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    "what",
    [
        "given back by empty_cache",
        pytest.param(
            "lent to the system",
            marks=pytest.mark.skipif(
                "LazyFree:" not in SMAPS.read_text(), reason="the system does not tell"
            ),
        ),
        "given back without use",
        "too much for an eighth of the machine",
        "a child process goes on",
        "advice on huge pages",
        "advice withdrawn",
    ],
)
def test_what_becomes_of_memory_that_is_kept(said, what):
    assert set(said[what].split()) == {"True"}


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_below_a_limit_of_the_address_space_others_find_memory(limit):
    program = f"""
import resource

def used():
    place = dict(RLIMIT_AS=0, RLIMIT_DATA=5)["{limit}"]
    return int(Path("/proc/self/statm").read_text().split()[place]) * 4096

torch.set_num_threads(1)
resource.setrlimit(resource.{limit}, (used() + 600 * MB, resource.RLIM_INFINITY))
result(400 * MB)
torch.empty(400 * MB, dtype=torch.uint8)
bytearray(400 * MB)
place = result(40 * MB).data_ptr()
print("some is kept:", place == result(40 * MB).data_ptr())
"""
    done = run(RESIDENT + program)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split()[-1] == "True"


@pytest.mark.parametrize("value", ["0", "1", ""])
def test_the_environment_may_turn_keeping_off(value):
    program = """
before = resident()
result(64 * MB)
print(resident() - before > 32 * MB)
"""
    done = run(RESIDENT + program, SPGRAD_KEEP_MEMORY=value)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == [str(value != "0")]


def test_another_value_in_the_environment_is_an_error():
    done = run(RESIDENT, SPGRAD_KEEP_MEMORY="no")
    assert "ValueError: SPGRAD_KEEP_MEMORY must be 0 or 1, but received 'no'" in done.stderr


def test_the_profiler_knows_all_memory_that_is_given_back():
    program = """
with torch.profiler.profile(profile_memory=True):
    result(LEAST)
    spgrad.empty_cache()
"""
    done = run(RESIDENT + program)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "unknown" not in done.stderr
