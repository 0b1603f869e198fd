"""Shows what kernels are compiled with, and compiles them for machines that have a GPU.

python -m spgrad.cuda info
python -m spgrad.cuda precompile --arch sm_90 --dtype float32 --output kernels

The second fills a cache, which is used where the environment variable SPGRAD_CACHE names its
folder. It needs no GPU, but the same versions of spgrad and of NVRTC.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import torch

from spgrad.cuda import info

_precompile = torch.ops.spgrad._cuda_precompile.default  # noqa: SLF001 - our own
_kernels = torch.ops.spgrad._cuda_kernels.default  # noqa: SLF001
DTYPES = ("float32", "float64", "float16", "bfloat16", "complex64", "complex128")


def precompile(arch: str, dtypes: list[str], output: str | None) -> None:
    """Compile all kernels of these dtypes that the cache does not have yet."""
    names: list[str] = _kernels([getattr(torch, dtype) for dtype in dtypes])
    compiled = 0
    # NVRTC takes one thread for a kernel.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda name: _precompile(arch, [name], output), names)
        for done, number in enumerate(results, 1):
            compiled += number
            if done % 50 == 0:
                print(f"{arch}: {done} of {len(names)} kernels", flush=True)
    folder = output or info().cache
    print(f"{arch}: {len(names)} kernels in {folder}, {compiled} of them new")


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m spgrad.cuda", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="show what kernels are compiled with, and for")
    command = commands.add_parser("precompile", help="compile kernels without a GPU")
    command.add_argument(
        "--arch",
        action="append",
        help="such as sm_90; may be given several times; by default those of this machine",
    )
    command.add_argument(
        "--dtype",
        action="append",
        choices=DTYPES,
        help="of the values; may be given several times; all without it",
    )
    command.add_argument(
        "--output", metavar="DIR", help="folder that everybody may read, not the user's own cache"
    )
    options = parser.parse_args(arguments)
    if options.command == "info":
        print(info())
        return
    usable = {device.architecture for device in info().devices if device.unavailable is None}
    architectures = options.arch or sorted(usable)
    if not architectures:
        parser.error("--arch must name an architecture where no CUDA device can run the kernels")
    try:
        for arch in architectures:  # an unknown one is an error before work begins
            _precompile(arch, [], options.output)
        for arch in architectures:
            precompile(arch, options.dtype or list(DTYPES), options.output)
    except (RuntimeError, ValueError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
