"""The machine code of the CUDA kernels, as PyTorch's NVRTC makes it: no GPU is needed."""

import functools
import importlib.util
import itertools
import math
import multiprocessing
import re
import shutil
import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from oracle import DTYPES

import spgrad
from benchmarks.kernels.cuda_sweep.compiler import compile_kernels

FORWARD, TRANSPOSED, GRADIENT_A, BOTH = (
    "false, true, false",
    "true, true, false",
    "false, false, true",
    "true, true, true",
)
# Of the kernels for p = 128 and wide loads: bytes that are spilled at most. NVRTC 13.0 and 13.2
# spill 0 to 48 of most; what has more is a sum of wide numbers beside rows of as many.
SPILLED = {
    (torch.float32, FORWARD): 0,
    (torch.float32, TRANSPOSED): 16,
    (torch.float32, GRADIENT_A): 0,
    (torch.float32, BOTH): 16,
    (torch.float64, FORWARD): 0,
    (torch.float64, BOTH): 64,
    (torch.float16, FORWARD): 0,
    (torch.float16, BOTH): 32,
    (torch.bfloat16, FORWARD): 0,
    (torch.bfloat16, BOTH): 32,
    (torch.complex64, FORWARD): 0,
    (torch.complex64, BOTH): 32,
    (torch.complex128, FORWARD): 0,
    (torch.complex128, BOTH): 384,
}
# Forward, instructions for an entry, where the rows of all that are added together are there.
INSTRUCTIONS = {
    torch.float32: 8,
    torch.float64: 13,
    torch.float16: 10,
    torch.bfloat16: 10,
    torch.complex64: 24,
    torch.complex128: 17,
}

needs_nvrtc = pytest.mark.skipif(
    "sm_90" not in spgrad.cuda.info().architectures, reason="needs an NVRTC that knows sm_90"
)


def disassembler():
    """Find nvdisasm: of the system, or of Triton, which comes with PyTorch for CUDA."""
    found = importlib.util.find_spec("triton")
    folder = Path(found.origin).parent if found and found.origin else Path()
    return shutil.which("nvdisasm") or shutil.which(folder / "backends/nvidia/bin/nvdisasm")


def shape_of(name):
    """Read the numbers of a product's kernel: vector, lanes, tiles, at once, blocks."""
    numbers = re.search(r"Shape<.*?((?:\d+, ){4}\d+)>>$", name)
    return tuple(map(int, numbers[1].split(", "))) if numbers else None


@functools.cache
def kernel_for(dtype, role):
    """Name the kernel with 32-bit indices and the widest loads that does 128 columns, or most."""
    names = [
        name
        for name in torch.ops.spgrad._cuda_kernels([dtype])
        if "Shape<" in name
        and f"int, unsigned, {role}, " in name
        and shape_of(name)[0] == 16 // dtype.itemsize
    ]
    columns = {name: shape_of(name)[0] * shape_of(name)[1] * shape_of(name)[2] for name in names}
    most = min(128, max(columns.values()))
    return next(name for name in names if columns[name] == most)


def build(names, architecture):
    """Compile kernels into one file."""
    built = compile_kernels({name: name for name in names}, architecture, {})
    assert not built.error, built.error
    return built


@functools.cache
def build_one(name):
    """Compile one kernel, once."""
    return build([name], "sm_90")


def build_all(names, architecture):
    """Compile kernels in several processes, and give the files."""
    batches = [(names[first : first + 8], architecture) for first in range(0, len(names), 8)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context) as pool:
        return list(pool.map(build, *zip(*batches, strict=True)))


@functools.cache
def build_others():
    """Compile all kernels but the products, once."""
    return build_all(torch.ops.spgrad._cuda_kernels([]), "sm_90")


@functools.cache
def build_narrow():
    """Compile kernels of few columns, once: of each dtype and kind those that keep most."""
    names = []
    kinds = (("multiply_narrow", TRANSPOSED), ("multiply_narrow", BOTH), ("extremum", TRANSPOSED))
    for dtype, (kernel, role) in itertools.product(DTYPES, kinds):
        of_kind = re.compile(rf"::{kernel}<.*int, unsigned, {role}, ")
        found = filter(of_kind.search, torch.ops.spgrad._cuda_kernels([dtype]))
        names += sorted(found, key=lambda n: math.prod(map(int, n[-6:-2].split(", "))))[-2:]
    return build_all(sorted(set(names)), "sm_90")


def resources(files):
    """Give registers and spilled bytes of all kernels of these files, by name."""
    return {name: numbers for built in files for name, (_, *numbers) in built.kernels.items()}


def disassemble(code, folder):
    """Give the lines of the machine code, each with its instruction if it has one."""
    file = folder / "kernel.cubin"
    file.write_bytes(code)
    text = subprocess.run(
        [disassembler(), "-c", file], check=True, capture_output=True, text=True
    ).stdout
    for line in text.splitlines():
        yield line, re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?);", line)


def instructions_by_name(built, folder):
    """Give the instructions of each kernel of a file, in their order."""
    found, part = {}, []
    for line, instruction in disassemble(built.code, folder):
        if section := re.match(r"\.text\.(\S+):", line):
            part = found[section[1]] = []
        elif instruction:
            part.append(instruction[1].strip())
    return {name: found[symbol] for name, (symbol, *_) in built.kernels.items()}


def begins_with_wait(instructions):
    """Tell if nothing of the memory comes before the wait, on no way through the kernel."""
    if "ACQBULK" not in instructions:
        return False
    before = itertools.takewhile(lambda i: i != "ACQBULK", instructions)
    other = re.compile(
        r"(@\S+ )?(LDG?|STG?|LDL|STL|ATOMG?|REDG?|PREEXIT|BRA|BRX|JMP|CALL|RET|EXIT)\b"
    )
    return not any(other.match(i) for i in before)


def loops_over_entries(code, at_once, folder):
    """List the parts of the code without a jump that load so many rows."""
    parts, part = [], []
    for line, instruction in disassemble(code, folder):
        if instruction and not instruction[1].startswith("NOP"):
            part.append(instruction[1])
        if re.match(r"\.L", line) or (instruction and "BRA" in instruction[1]):
            parts.append(part)
            part = []
    wide = [p for p in parts if sum("LDG.E.128" in i for i in p) == at_once]
    return [p for p in wide if not any(re.match(r"@\S+ [DF]FMA", i) for i in p)]


@needs_nvrtc
@pytest.mark.parametrize(("dtype", "role"), SPILLED, ids=str)
def test_products_keep_their_numbers_in_registers(dtype, role):
    name = kernel_for(dtype, role)
    (_, registers, spilled) = build_one(name).kernels[name]
    blocks = shape_of(name)[-1]
    assert registers * 256 * blocks <= 65536
    assert spilled <= SPILLED[dtype, role]


@needs_nvrtc
@pytest.mark.skipif(not disassembler(), reason="needs nvdisasm")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_are_loaded_by_16_bytes_and_added_in_few_instructions(dtype, tmp_path):
    name = kernel_for(dtype, FORWARD)
    _, lanes, tiles, at_once, _ = shape_of(name)
    loops = loops_over_entries(build_one(name).code, at_once * tiles, tmp_path)
    assert loops
    entries = at_once * 32 // lanes
    assert max(map(len, loops)) / entries <= INSTRUCTIONS[dtype]


@needs_nvrtc
def test_what_keeps_few_numbers_spills_nothing():
    found = resources([*build_others(), *build_narrow()])
    found = {name: of for name, of in found.items() if re.search("sort|mirror|Narrow", name)}
    assert len(found) > 30
    assert {name for name, (_, spilled) in found.items() if spilled} == set()


# Pairs of dtype and role that stand for all.
PAIRS = [
    (torch.float32, BOTH),
    (torch.float64, FORWARD),
    (torch.float16, TRANSPOSED),
    (torch.bfloat16, GRADIENT_A),
    (torch.complex64, GRADIENT_A),
    (torch.complex128, BOTH),
]


@needs_nvrtc
def test_the_oldest_architecture_compiles():
    architecture = "sm_75"
    if architecture not in spgrad.cuda.info().architectures:
        pytest.skip("this NVRTC does not compile for it")
    names = [kernel_for(dtype, role) for dtype, role in PAIRS]
    names += [name for name in torch.ops.spgrad._cuda_kernels([]) if "int, int" in name]
    found = resources(build_all(names, architecture))
    assert all(registers > 0 for registers, _ in found.values())


@needs_nvrtc
@pytest.mark.skipif(not disassembler(), reason="needs nvdisasm")
def test_kernels_wait_for_those_before_them_before_all_else(tmp_path):
    code = {}
    products = [build_one(kernel_for(*pair)) for pair in SPILLED]
    for built in [*products, *build_others(), *build_narrow()]:
        code |= instructions_by_name(built, tmp_path)
    assert len(code) > len(SPILLED) + len(torch.ops.spgrad._cuda_kernels([])) + 10
    assert [name for name, part in code.items() if not begins_with_wait(part)] == []
    # Whose kernel comes behind these is known: it waits, too.
    followed = {name for name in code if re.search("::(sort_|mirror|find_pieces)", name)}
    assert {name for name, part in code.items() if "PREEXIT" in part} == followed


@pytest.mark.long
@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"])
def test_all_kernels_compile(architecture, tmp_path):
    if architecture not in spgrad.cuda.info().architectures:
        pytest.skip("this NVRTC does not compile for it")
    names = torch.ops.spgrad._cuda_kernels(list(DTYPES))
    files = build_all(names, architecture)
    found = resources(files)
    assert found.keys() == set(names)
    assert all(0 < registers <= 168 for registers, _ in found.values())
    if architecture in {"sm_90", "sm_100", "sm_120"} and disassembler():
        for built in files:
            assert all(map(begins_with_wait, instructions_by_name(built, tmp_path).values()))
