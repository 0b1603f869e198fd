"""Matrices on the device, and the launches of a variant as the operators make them."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.kernels.cuda_sweep.compiler import constants_of, read_structs, sources
from benchmarks.kernels.cuda_sweep.variants import ROLES, Variant

if TYPE_CHECKING:
    from benchmarks.operator.problem import Problem

SETS = 3
"""Of operands and results, in turn, so that none of them is left in the caches."""
STATUSES = 64
"""That are cleared at once, as in status.cpp."""


class Attribute(ctypes.Structure):
    """CUlaunchAttribute: whether a kernel may be launched before the one before it has ended."""

    _fields_ = (("id", ctypes.c_int), ("unused", ctypes.c_int), ("value", ctypes.c_int * 16))


class Configuration(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(Attribute)),
        ("number_of_attributes", ctypes.c_uint),
    )


class Launch(NamedTuple):
    """A kernel with all that it is given."""

    kernel: str
    grid: tuple[int, int]
    threads: int
    argument: Any

    def configuration(self, stream: int, *, early: bool) -> Configuration:
        """Say how the driver is to launch it."""
        attribute = Attribute(6, 0, (1,))  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        return Configuration(
            (*self.grid, 1), (self.threads, 1, 1), 0, stream, ctypes.pointer(attribute), early
        )


class Case:
    """A matrix in both orders of its entries, with operands."""

    def __init__(self, problem: Problem) -> None:
        """Make everything where the problem is."""
        self.problem, (self.n, self.m) = problem, problem.size
        self.order = torch.argsort(problem.col_indices, stable=True)
        counts = torch.bincount(problem.col_indices, minlength=self.m)
        self.crow, self.col = problem.crow_indices.int(), problem.col_indices.int()
        self.ccol = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
        self.pairs = torch.stack([problem.row_indices()[self.order], self.order], 1).int()
        self.B = [problem.B.roll(turn, 0) for turn in range(SETS)]
        self.G = [problem.G.roll(turn, 0) for turn in range(SETS)]
        self.C, self.dB = ([torch.empty_like(t) for t in listed] for listed in (self.G, self.B))
        self.dA = [torch.empty_like(problem.values) for _ in range(SETS)]


class Runner:
    """The launches of a variant for each set of operands, and where results are."""

    def __init__(self, variant: Variant, case: Case, multiprocessors: int) -> None:
        """Reserve memory, and fill in what the kernels are given."""
        self._variant, self._case, self._multiprocessors = variant, case, multiprocessors
        texts = sources(dict(variant.constants))
        self._structs, self._constants = read_structs(texts["arguments.h"]), constants_of(texts)
        self._kept: list[Tensor] = []
        records = self._structs["Record"] * self._constants["kRecordsOfProduct"]
        self.statuses = self._keep(STATUSES * ctypes.sizeof(self._structs["Status"]))
        self.pending = self._keep(8)
        self._origin = self._structs["Origin"](
            items=1, rows=case.n, columns=case.m, entries=len(case.col), serial=1,
            offsets=case.crow.data_ptr(), indices=case.col.data_ptr(),
            records=self._keep(ctypes.sizeof(records)).data_ptr(), pending=self.pending.data_ptr(),
        )  # fmt: skip
        self.results: dict[str, Tensor] = {}
        """Of the first operands, by the names of what is right."""
        self.launches = self._products() if variant.kind in ROLES else [self._sort()]

    def _keep(self, count: int) -> Tensor:
        memory = torch.zeros(count, dtype=torch.uint8, device=self._case.col.device)
        self._kept.append(memory)
        return memory

    def _products(self) -> list[list[Launch]]:
        v, case, c = self._variant, self._case, self._constants
        moved, sums, products = ROLES[v.kind]
        rows, columns = (case.m, case.n) if moved else (case.n, case.m)
        gathered, own, out = (case.G, case.B, case.dB) if moved else (case.B, case.G, case.C)
        self.results |= {"dB" if moved else "C": out[0]} if sums else {}
        self.results |= {"dA": case.dA[0]} if products else {}
        most = len(case.col) // c["kLongRow"] * 2
        of_sums = max(4, case.problem.values.itemsize)
        a = self._structs["Product"](
            p=v.p, conjugated=moved, most_pieces=most, origin=self._origin, rows_of_block=v.rows,
            values=case.problem.values.data_ptr(),
            pieces=self._keep(most * ctypes.sizeof(self._structs["Piece"])).data_ptr(),
            partial_sums=self._keep(most * v.p * of_sums).data_ptr(),
            piece_blocks=min(-(-most // c["kWarps"]), self._multiprocessors * v.piece_blocks),
        )  # fmt: skip
        a.a = self._structs["Grouped"](
            reports=not moved, items=1, rows=rows, columns=columns, entries=len(case.col),
            together=1, offset_stride=rows + (not moved),
            offsets=(case.ccol if moved else case.crow).data_ptr(),
            indices=(case.pairs if moved else case.col).data_ptr(),
        )  # fmt: skip
        find = self._structs["Find"](a.a, a.origin, a.status, a.pieces, most)
        threads = c["kWarps"] * c["kWarp"]
        grid = (a.piece_blocks - (-rows // v.rows), 1 if products else -(-v.p // v.columns()))
        launches = []
        for x, y, sums_of_turn, dA in zip(gathered, own, out, case.dA, strict=True):
            of_turn = type(a).from_buffer_copy(a)
            of_turn.gathered = self._structs["Operand"](x.data_ptr(), 0, v.p)
            of_turn.own = self._structs["Operand"](y.data_ptr(), 0, v.p)
            of_turn.sums, of_turn.products = sums_of_turn.data_ptr(), dA.data_ptr()
            first = Launch("find_pieces", (-(-rows // threads), 1), threads, find)
            launches.append([first, Launch("multiply", grid, threads, of_turn)])
        return launches

    def _sort(self) -> list[Launch]:
        case, c, threads = self._case, self._constants, self._constants["kSortThreads"]
        entries, keys = len(case.col), case.m
        bits = max(1, (keys - 1).bit_length())
        passes = -(-bits // c["kDigitBits"])
        digit_bits = -(-bits // passes)
        tile = threads * c["kSortRounds"]
        digits, tiles = 1 << digit_bits, -(-entries // tile)
        pairs, offsets = torch.empty_like(case.pairs), torch.empty_like(case.ccol)
        self.results |= {"pairs": pairs, "ccol": offsets}
        target = (self._keep(4 * entries).data_ptr(), pairs.data_ptr())
        source = (self._keep(4 * entries).data_ptr(), self._keep(pairs.nbytes).data_ptr())
        sorted_keys = target[0]
        if passes % 2 == 0:  # the last pass ends in the pairs
            target, source = source, target
        sort = self._structs["Sort"](
            origin=self._origin, entries=entries, digit_bits=digit_bits, tiles=tiles,
            counts=self._keep(4 * digits * tiles).data_ptr(),
            totals=self._keep(4 * digits).data_ptr(),
            first_rows=self._keep(8 * (tiles + 1)).data_ptr(),
        )  # fmt: skip
        launches = []
        of_offsets = -(-(case.n + 1) // threads)
        if self._variant.kind == "mirror":
            sort.may_be_idle = 1
            mirror = self._structs["Mirror"](
                self._origin, tiles, offsets.data_ptr(), pairs.data_ptr()
            )
            launches.append(Launch("mirror", (tiles + of_offsets, 1), threads, mirror))
        for number in range(passes):
            a = type(sort).from_buffer_copy(sort)
            a.shift = number * digit_bits
            (a.keys, a.pairs), (a.sorted_keys, a.sorted_pairs) = source, target
            again = " again" if number else ""
            more = 0 if number else of_offsets
            launches.append(Launch("sort_count" + again, (tiles + more, 1), threads, a))
            blocks = -(-digits // c["kScanDigits"])
            launches.append(Launch("sort_scan", (blocks, 1), c["kScanThreads"], a))
            launches.append(Launch("sort_move" + again, (tiles, 1), threads, a))
            target, source = source, target
        of_keys = self._structs["Offsets"](entries, keys, sorted_keys, offsets.data_ptr())
        keys_of_block = c["kKeysOfGap"] * threads // c["kWarp"]
        grid = (1 + entries // tile - (-keys // keys_of_block), 1)
        return [*launches, Launch("sort_offsets", grid, threads, of_keys)]
