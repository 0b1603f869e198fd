"""What is tried: a list to be changed freely."""

from __future__ import annotations

from typing import NamedTuple

SPACE = "spgrad::cuda::"
ROLES = {
    "forward": (False, True, False),
    "backward": (True, True, True),
    "products": (False, False, True),
    "transposed": (True, True, False),
}
"""Of a product: whether it is over the columns of A, has sums, has a number for each entry."""
KINDS = (*ROLES, "sort", "mirror")
SCALARS = {
    "float32": "float",
    "float64": "double",
    "float16": SPACE + "Half",
    "bfloat16": SPACE + "BFloat16",
    "complex64": SPACE + "Complex<float>",
    "complex128": SPACE + "Complex<double>",
}
Shape = tuple[int, int, int, int] | tuple[()]


class Variant(NamedTuple):
    """Kernels of one kind; of sorts, only the constants count.

    With "mirror" first, a sort has nothing to do if the matrix is symmetric.
    """

    kind: str
    shape: Shape = (32, 1, 4, 4)
    """Lanes, tiles, entries at once, thread blocks of a multiprocessor; of few columns, nothing."""
    vector: int = 4
    dtype: str = "float32"
    p: int = 128
    rows: int = 32
    """Of a thread block."""
    piece_blocks: int = 2
    """For each multiprocessor; 2 in products.cpp."""
    constants: tuple[tuple[str, int], ...] = ()
    """What takes the place of constants in the headers."""
    early: bool = True
    """Whether kernels are launched before the one before them has ended."""

    def __str__(self) -> str:
        """Name all that differs in a table."""
        shape = ""
        if self.kind in ROLES:
            shape = f" shape {self.shape} rows {self.rows} pieces {self.piece_blocks}"
        constants = "".join(f" {name}={value}" for name, value in self.constants)
        return f"{self.kind}{shape}{constants}{'' if self.early else ' not early'}"

    def columns(self) -> int:
        """Count the columns that a group of lanes does at a time."""
        return self.vector * self.shape[0] * self.shape[1] if self.shape else self.p

    def expressions(self) -> dict[str, str]:
        """Give the kernels' names for NVRTC, by what they are called here."""
        if self.kind in ROLES:
            scalar = SCALARS[self.dtype]
            shape = self.shape or (self.p // self.vector,)
            numbers = (*ROLES[self.kind], self.vector, *shape)
            rest = "int, unsigned, " + ", ".join(str(number).lower() for number in numbers)
            multiply = f"multiply<{SPACE}Shape<{scalar}, {scalar}, {rest}>>"
            if not self.shape:
                multiply = f"multiply_narrow<{SPACE}Narrow<{scalar}, {rest}>>"
            kernels = {"find_pieces": "find_pieces<int>", "multiply": multiply}
        else:
            source = f"{SPACE}ByColumnOfCsr<int, int>"
            kernels = {"sort_scan": "sort_scan", "sort_offsets": "sort_offsets<int>"}
            if self.kind == "mirror":
                kernels["mirror"] = "mirror<int>"
            for step in ("sort_count", "sort_move"):
                kernels[step] = f"{step}<{source}>"
                kernels[step + " again"] = f"{step}<{SPACE}Moved<{source}>>"
        return {name: SPACE + kernel for name, kernel in kernels.items()}


# By dtype, p and vector: shapes of the forward product and of both gradients. The first of each is
# what shapes.cpp chooses. Gradients of half numbers do all columns at once, as then products have
# the dtype of the operands. With half the lanes, other thread blocks do the other columns, and the
# first cache holds rows of X for twice as many rows of A.
HALF = (
    ((16, 1, 4, 4), (16, 1, 2, 4), (8, 2, 2, 4), (8, 1, 4, 4)),
    ((16, 1, 4, 3), (16, 1, 2, 3)),
)
WIDE = (((32, 2, 2, 4), (32, 1, 4, 4), (32, 2, 2, 3)), ((32, 2, 2, 3), (32, 1, 4, 3)))
SHAPES: dict[tuple[str, int, int], tuple[tuple[Shape, ...], tuple[Shape, ...]]] = {
    ("float32", 128, 4): (
        ((32, 1, 4, 4), (16, 2, 2, 4), (32, 1, 2, 4), (32, 1, 4, 3), (16, 1, 4, 4)),
        ((32, 1, 4, 3), (16, 2, 2, 3), (32, 1, 2, 4), (32, 1, 4, 4)),
    ),
    ("float32", 64, 4): (((16, 1, 4, 4), (16, 1, 2, 4), (8, 2, 2, 4)), ((16, 1, 4, 3),)),
    ("float32", 256, 4): WIDE,
    ("float32", 32, 4): (((8, 1, 4, 4), (8, 1, 2, 4), (4, 2, 2, 4)), ((8, 1, 4, 3),)),
    ("float32", 1, 1): (((), (4, 1, 4, 4)), ((), (4, 1, 4, 3))),
    ("float32", 3, 1): (((), (4, 1, 4, 4)), ((), (4, 1, 4, 3))),
    ("float32", 8, 4): (((), (4, 1, 4, 4)), ((), (4, 1, 4, 3))),
    ("float16", 128, 8): HALF,
    ("bfloat16", 128, 8): HALF,
    ("float64", 128, 2): WIDE,
    ("complex64", 128, 2): WIDE,
    ("complex128", 128, 1): WIDE,
}
LONG_ROWS = (128, 512)
# The entries of a tile must fit into 48 KB, in the order of their digits.
SORTS = (
    {},
    *({"kSortRounds": rounds} for rounds in (4, 12)),
    {"kSortThreads": 128},
    {"kSortThreads": 128, "kSortRounds": 16},
    {"kSortThreads": 512, "kSortRounds": 4},
    {"kSortThreads": 512, "kSortRounds": 6},
    *({"kDigitBits": bits} for bits in (6, 8)),
    {"kScanThreads": 512},
)


def all_variants() -> list[Variant]:
    """List what is tried, what matters most first."""
    made = []
    for (dtype, p, vector), both in SHAPES.items():
        for kind, shapes in zip(("forward", "backward"), both, strict=True):
            made += [Variant(kind, shape, vector, dtype, p) for shape in shapes]
    for kind, blocks in (("forward", 4), ("backward", 3)):
        usual = Variant(kind, (32, 1, 4, blocks))
        made += [usual._replace(constants=(("kLongRow", count),)) for count in LONG_ROWS]
        made += [usual._replace(rows=rows) for rows in (16, 64)]
        # As many warps of a multiprocessor have the same bound on registers.
        fewer = usual._replace(shape=(32, 1, 4, 2 * blocks), rows=16)
        made.append(fewer._replace(constants=(("kWarps", 4),)))
        made += [usual._replace(piece_blocks=count) for count in (1, 4)]
        made.append(usual._replace(early=False))
    made += [Variant(kind, (32, 1, 4, n)) for kind in ("products", "transposed") for n in (3, 4)]
    for kind in ("forward", "backward"):
        narrow = Variant(kind, (), 1, p=1)
        for lanes in (4, 16):
            of_lanes = narrow._replace(constants=(("kNarrowLanes", lanes),), rows=256 // lanes)
            made.append(of_lanes)
    made += [Variant("mirror"), Variant("mirror", constants=(("kSortRounds", 4),))]
    made += [Variant("sort", constants=tuple(constants.items())) for constants in SORTS]
    return [*made, Variant("sort", early=False)]
