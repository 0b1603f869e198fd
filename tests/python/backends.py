"""The backends that the tests can run on.

kernels    the kernels of the CPU
composite  what devices without kernels get, on CPU tensors
cuda       the same on a CUDA device
"""

import warnings
from itertools import product

import torch

NAMES = ("kernels", "composite", "cuda")
PRODUCTS = ("mm", "mm_transposed", "sddmm", "mm_backward")
OPERATORS = (
    "csr_pattern",
    "coo_pattern",
    *("_".join(pair) for pair in product(("csr", "coo", "pattern"), PRODUCTS)),
)


def is_missing(name):
    """Whether this machine lacks a backend."""
    return name == "cuda" and not torch.cuda.is_available()


def use(name):
    """Let this process compute on a backend; returns what has to be kept for it."""
    if is_missing(name):
        return None
    if name == "cuda":
        torch.set_default_device(name)
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
