"""The backends that the tests can run on.

kernels         the kernels of the CPU
composite       what devices without kernels get, on CPU tensors
cuda            the kernels of CUDA
cuda-emulation  the same on CPU tensors, in a build with SPGRAD_CUDA_EMULATION
"""

import warnings
from itertools import product

import torch

import spgrad
from spgrad import _library

NAMES = ("kernels", "composite", "cuda", "cuda-emulation")
PRODUCTS = ("mm", "mm_transposed", "sddmm", "mm_backward")
EXTREMA = ("mm_extremum", "selected_mm", "selected_mm_transposed", "selected_sddmm")
OPERATORS = (
    "csr_pattern",
    "coo_pattern",
    "pattern_pinv_mm",
    "pattern_pinv_with_multipliers",
    *("_".join(pair) for pair in product(("csr", "coo", "pattern"), PRODUCTS + EXTREMA)),
)


def is_missing(name):
    """Whether this machine lacks a backend."""
    if name == "cuda-emulation":
        return not any(_library.library_path().parent.glob("libspgrad_cuda_emulation.*"))
    return name == "cuda" and not torch.cuda.is_available()


def use(name):
    """Let this process compute on a backend; returns what has to be kept for it."""
    if is_missing(name):
        return None
    if name == "cuda":
        torch.set_default_device(name)
    if name in {"cuda", "cuda-emulation"}:
        # The tests ask for errors of the product that meets a bad index, not of the next one.
        spgrad.cuda.check_at_once(True)
    return put_composite_on_cpu() if name == "composite" else None


def put_composite_on_cpu():
    """Replace the kernels of the CPU by those that any other device has."""
    library = torch.library.Library("spgrad", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")
        for name in OPERATORS:
            operator = getattr(torch.ops.spgrad, name).default

            def call(*arguments, operator=operator):
                return operator._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *arguments)

            library.impl(name, call, "CPU")
    return library
