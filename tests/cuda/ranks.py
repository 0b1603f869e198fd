"""Products over ranks on a CUDA device beside float64, within 20 seconds.

One rank with NCCL, whose collectives then go to itself, once with gloo for the CPU beside it, and
three ranks on one device with gloo. Each check prints a line; a backend that is not there is named
and left out. Fails if a check did.
"""

from __future__ import annotations

import argparse
import datetime as dt
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

import spgrad
from spgrad.distributed import RowSharded
from spgrad.distributed._construction import from_local
from spgrad.distributed._ranks import Ranks
from spgrad.distributed._structure import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.distributed.device_mesh import DeviceMesh

TOLERANCE = 64
"""In units of epsilon, of the sum of absolute terms."""

SIDE, P = 40, 32
LONG_ROW = 17  # full: the one whose terms are many


class Problem(NamedTuple):
    """A matrix and operands, on the CPU in float64 or complex128, rounded to a dtype."""

    crow_indices: Tensor
    rows: Tensor
    columns: Tensor
    values: Tensor
    B: Tensor
    G: Tensor
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Rows and columns."""
        return len(self.crow_indices) - 1

    def derivatives(self, *, absolute: bool = False) -> list[Tensor]:
        """Compute C, both gradients, and the sampled product, or sums of absolute terms."""
        values, B, G = (
            operand.abs() if absolute else operand for operand in (self.values, self.B, self.G)
        )
        A = values.new_zeros(self.size, self.size).index_put((self.rows, self.columns), values)
        places = self.rows, self.columns
        return [A @ B, (G @ B.mH)[places], A.mH @ G, (G @ B.mT)[places]]


def problem(dtype: torch.dtype) -> Problem:
    """Make a grid's stencil with a full row."""
    numbers = torch.arange(SIDE * SIDE)
    far = [numbers - SIDE, numbers - 1, numbers, numbers + 1, numbers + SIDE]
    mask = torch.zeros(SIDE * SIDE, SIDE * SIDE, dtype=torch.bool)
    for columns in far:
        kept = (columns >= 0) & (columns < SIDE * SIDE)
        mask[numbers[kept], columns[kept]] = True
    mask[LONG_ROW] = True
    rows, columns = mask.nonzero(as_tuple=True)
    generator = torch.Generator().manual_seed(3)
    wide = torch.complex128 if dtype.is_complex else torch.float64

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=wide, generator=generator).to(dtype).to(wide)

    crow_indices = torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)])
    size = len(numbers)
    operands = normal(len(rows)), normal(size, P), normal(size, P)
    return Problem(crow_indices, rows, columns, *operands, dtype)


class Share(NamedTuple):
    """What one rank has of a problem."""

    problem: Problem
    rank: int
    ranks: int
    device: torch.device

    @property
    def starts(self) -> list[int]:
        """Where rows of each rank begin: not evenly, and the end of the last."""
        cuts = [self.problem.size * (3 * k + 1) // (3 * self.ranks) for k in range(1, self.ranks)]
        return [0, *cuts, self.problem.size]

    @property
    def rows(self) -> slice:
        """The rows of this rank, and of its part of B."""
        return slice(*self.starts[self.rank : self.rank + 2])

    @property
    def entries(self) -> slice:
        """The entries of this rank."""
        crow_indices = self.problem.crow_indices
        return slice(int(crow_indices[self.rows.start]), int(crow_indices[self.rows.stop]))

    def structure(self) -> Rows:
        """Give the rows as the constructors take them."""
        offsets = self.problem.crow_indices[self.rows.start : self.rows.stop + 1]
        columns = self.problem.columns[self.entries]
        shape = (self.problem.size, self.problem.size)
        return Rows((offsets - offsets[0]).to(self.device), columns.to(self.device), shape)

    def operands(self) -> list[Tensor]:
        """Give values, B and the gradient of C on the device."""
        whole = self.problem.values, self.problem.B, self.problem.G
        places = self.entries, self.rows, self.rows
        return [
            tensor[place].to(self.device, self.problem.dtype)
            for tensor, place in zip(whole, places, strict=True)
        ]

    def difference(self, results: list[Tensor]) -> float:
        """Compare with float64: the largest difference over what rounding explains."""
        exact, terms = self.problem.derivatives(), self.problem.derivatives(absolute=True)
        places = self.rows, self.entries, self.rows, self.entries
        epsilon = torch.finfo(self.problem.dtype).eps
        worst = 0.0
        for result, wanted, bound, place in zip(results, exact, terms, places, strict=True):
            error = (result.detach().cpu().to(wanted.dtype) - wanted[place]).abs()
            worst = max(worst, float((error / (bound[place].abs() * epsilon)).nan_to_num().max()))
            if not result.isfinite().all():
                return float("inf")
        return worst


def derive(A: RowSharded, share: Share) -> list[Tensor]:
    """Give C, both gradients and the sampled product."""
    values, B, G = share.operands()
    values.requires_grad_()
    B.requires_grad_()
    C = A.mm(values, B)
    return [C, *torch.autograd.grad(C, (values, B), G), A.sddmm(G, B.detach())]


def refuse_large(difference: float) -> str:
    """Tell a difference from float64.

    Raises:
        AssertionError: Rounding does not explain it.

    """
    text = f"{difference:.1f} epsilon of the sum of absolute terms"
    assert difference < TOLERANCE, text
    return text


def products(mesh: DeviceMesh, share: Share, max_halo_bytes: int | None = None) -> str:
    """Compare products and gradients with float64, and see whether one process has their bits."""
    A = RowSharded.from_local(*share.structure()[:3], mesh, max_halo_bytes=max_halo_bytes)
    results = derive(A, share)
    text = refuse_large(share.difference(results))
    alone = Share(share.problem, 0, 1, share.device)
    places = share.rows, share.entries, share.rows, share.entries
    whole = derive(RowSharded.from_local(*alone.structure()[:3]), alone)
    same = [
        name
        for name, result, one, place in zip(
            ("C", "dA", "dB", "sddmm"), results, whole, places, strict=True
        )
        if result.equal(one[place])
    ]
    return f"{text}; bits of one process: {', '.join(same) or 'none'}"


def a_second_stream(mesh: DeviceMesh, share: Share) -> str:
    """Multiply on a stream that is busy, so that rows that are sent too early are wrong ones."""
    A = RowSharded.from_local(*share.structure()[:3], mesh)
    values, B, G = share.operands()
    stream = torch.cuda.Stream(share.device)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late_values, late_B = torch.zeros_like(values), torch.zeros_like(B)
        torch.cuda._sleep(200_000_000)  # about 0.1 s
        late_values.copy_(values)
        late_B.copy_(B)
        late_values.requires_grad_()
        late_B.requires_grad_()
        C = A.mm(late_values, late_B)
        results = [C, *torch.autograd.grad(C, (late_values, late_B), G), A.sddmm(G, B)]
        del late_B
        torch.full_like(B, torch.nan)  # in memory that may be free again
    stream.synchronize()
    return refuse_large(share.difference(results))


def dtensors(mesh: DeviceMesh, share: Share) -> str:
    """Multiply a DTensor by a permuted matrix of one rank, whose values are on the CPU."""
    problem, size = share.problem, share.problem.size
    structure = problem.crow_indices, problem.columns, problem.values, (size, size)
    whole = None
    if share.rank == 0:
        whole = torch.sparse_csr_tensor(*structure, check_invariants=True).to(share.device)
    order = torch.arange(size).flip(0)
    A = RowSharded.from_rank(whole, mesh=mesh, permutation=None if share.rank else order)
    values = A.local(None if share.rank else problem.values.to(problem.dtype))
    begin, end = A.row_starts[share.rank : share.rank + 2]
    B = problem.B[order].to(share.device, problem.dtype)
    C = A.mm(values, DTensor.from_local(B[begin:end], mesh, [Shard(0)]))
    own = order[begin:end]
    difference = C.to_local().cpu().to(problem.B.dtype) - problem.derivatives()[0][own]
    terms = problem.derivatives(absolute=True)[0][own]
    epsilon = torch.finfo(problem.dtype).eps
    return refuse_large(float((difference.abs() / (terms.abs() * epsilon)).max()))


def late_rows(ranks: Ranks, device: torch.device) -> str:
    """Send rows that a busy stream has yet to write, and write to their memory afterwards."""
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        for _ in range(3):
            rows = torch.zeros(ranks.size, 1 << 18, device=device)
            out = torch.empty_like(rows)
            torch.cuda._sleep(100_000_000)  # about 0.05 s
            rows.fill_(ranks.rank + 1)
            ones = [1] * ranks.size
            transfer = ranks.send_rows(out, rows, ones, ones, "rows")
            del rows
            torch.full_like(out, torch.nan)
            transfer.wait()
            assert out.mean(1).tolist() == [rank + 1 for rank in range(ranks.size)], "wrong rows"
    return "in order"


def words(ranks: Ranks) -> str:
    """Time what ranks say before each product."""
    row = torch.arange(12)
    for _ in range(3):
        gathered = ranks.all_gather(row, "words")
    begin = time.perf_counter()
    for _ in range(20):
        gathered = ranks.all_gather(row, "words")
    took = (time.perf_counter() - begin) / 20
    assert gathered.equal(row.repeat(ranks.size, 1)), "they arrived wrong"
    return f"{1e6 * took:.0f} us"


def collectives(ranks: Ranks, device: torch.device) -> str:
    """Send rows of every dtype, add up, take the largest."""
    names = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.int64):
        numbers = torch.arange(ranks.size * 6, device=device).view(-1, 2) + 10 * ranks.rank
        rows = numbers.to(dtype)
        out = torch.empty_like(rows)
        ranks.send_rows(out, rows, [3] * ranks.size, [3] * ranks.size, "rows").wait()
        for other in range(ranks.size):
            part = numbers[3 * ranks.rank : 3 * ranks.rank + 3] + 10 * (other - ranks.rank)
            assert out[3 * other : 3 * other + 3].equal(part.to(dtype)), f"{dtype} arrived wrong"
        names.append(str(dtype).removeprefix("torch."))
    empty = torch.empty(0, 4, device=device)
    ranks.send_rows(empty, empty.clone(), [0] * ranks.size, [0] * ranks.size, "rows").wait()
    assert ranks.largest(torch.tensor([ranks.rank, 7]), "largest").tolist() == [ranks.size - 1, 7]
    return ", ".join([*names, "no rows"])


def with_itself(mesh: DeviceMesh, share: Share) -> RowSharded:
    """Make a matrix whose only rank uses collectives all the same."""
    ranks = Ranks(mesh)
    ranks.group = mesh.get_group(0)
    assert not ranks.is_alone
    return RowSharded(from_local(ranks, share.structure, None, "RowSharded.from_local"))


def checks(
    mesh: DeviceMesh, device: torch.device, rank: int, ranks: int
) -> Iterator[tuple[str, Callable[[], str]]]:
    """List what one rank checks, with the names that are printed."""
    of_mesh = Ranks(mesh)
    of_mesh.group = mesh.get_group(0)
    yield "collectives", lambda: collectives(of_mesh, device)
    yield "words", lambda: words(of_mesh)
    if device.type == "cuda":
        yield "rows of a busy stream", lambda: late_rows(of_mesh, device)
    for dtype in (torch.float32, torch.complex64):
        share = Share(problem(dtype), rank, ranks, device)
        name = str(dtype).removeprefix("torch.")
        if ranks == 1:
            yield (
                f"mm, gradients, sddmm {name}",
                lambda share=share: refuse_large(
                    share.difference(derive(with_itself(mesh, share), share))
                ),
            )
            continue
        yield f"mm, gradients, sddmm {name}", lambda share=share: products(mesh, share)
        row_bytes = P * dtype.itemsize
        yield (
            f"a halo of 9 rows at a time {name}",
            lambda share=share, most=9 * row_bytes: products(mesh, share, most),
        )
    share = Share(problem(torch.float32), rank, ranks, device)
    if ranks > 1 and device.type == "cuda":
        yield "a product on a busy stream", lambda: a_second_stream(mesh, share)
    if ranks > 1:
        yield "from_rank, a DTensor", lambda: dtensors(mesh, share)


def run_rank(device: str, backend: str, rank: int, ranks: int, store: Path) -> int:
    """Run the checks on one rank; print a line for each on rank 0, and for what fails on any."""
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(0)
    torch.distributed.init_process_group(
        backend,
        store=torch.distributed.FileStore(str(store), ranks),
        rank=rank,
        world_size=ranks,
        timeout=dt.timedelta(seconds=10),
        **({"device_id": torch.device("cuda:0")} if "nccl" in backend else {}),
    )
    mesh = init_device_mesh(device, (ranks,))
    failed = 0
    begin = time.perf_counter()
    for name, check in checks(mesh, torch.empty(0, device=device).device, rank, ranks):
        try:
            outcome = f"ok: {check()}"
        except (AssertionError, RuntimeError, ValueError) as error:
            outcome = f"FAILED on rank {rank}: {type(error).__name__}: {error}"
            failed = 1
        now = time.perf_counter()
        if rank == 0 or outcome.startswith("FAILED"):
            seconds = f"{now - begin:.1f} s"
            print(f"{backend}, {ranks} rank(s): {name}: {outcome} ({seconds})", flush=True)
        begin = now
    torch.distributed.destroy_process_group()
    return failed


def main() -> int:
    """Start the ranks of both backends side by side, and end them at the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cpu: to rehearse, with gloo alone")
    parser.add_argument("--seconds", type=float, default=20, help="of all together (20)")
    parser.add_argument("--rank", nargs=4, help=argparse.SUPPRESS, metavar="")
    arguments = parser.parse_args()
    if arguments.rank:
        backend, rank, ranks, store = arguments.rank
        return run_rank(arguments.device, backend, int(rank), int(ranks), Path(store))
    print(f"torch {torch.__version__}, spgrad {spgrad.__version__}", flush=True)
    there = {
        "nccl": arguments.device == "cuda" and torch.distributed.is_nccl_available(),
        "gloo": torch.distributed.is_gloo_available(),
    }
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("left out: PyTorch finds no CUDA device")
        return 0
    for backend in [name for name, is_there in there.items() if not is_there]:
        print(f"{backend}: left out: not with this device and this PyTorch", flush=True)
    this = sys.executable, __file__, "--device", arguments.device
    with tempfile.TemporaryDirectory() as folder:
        processes = {
            f"{backend}, rank {rank} of {ranks}": subprocess.Popen(
                [*this, "--rank", backend, str(rank), str(ranks), str(Path(folder, backend))]
            )
            for backend, ranks in (("nccl", 1), ("cpu:gloo,cuda:nccl", 1), ("gloo", 3))
            if all(is_there for name, is_there in there.items() if name in backend)
            for rank in range(ranks)
        }
        end = time.monotonic() + arguments.seconds
        failed = 0
        for name, process in processes.items():
            try:
                code = process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code = "a limit of time"
            if code != 0:
                print(f"{name}: FAILED with {code}", flush=True)
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
