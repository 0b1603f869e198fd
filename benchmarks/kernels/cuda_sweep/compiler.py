"""Variants of the kernels, compiled by the NVRTC that PyTorch brings. Imports no PyTorch."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.kernels.cuda_sweep.variants import SPACE, Variant

KERNELS = Path(__file__).resolve().parents[3] / "src" / "kernels" / "cuda"
INTEGERS = {"int": "c_int", "unsigned": "c_uint", "Int64": "c_longlong", "UInt64": "c_ulonglong"}


def read_structs(text: str) -> dict[str, Any]:
    """Make the structs of this text, in which each field has a line, for ctypes."""
    structs: dict[str, Any] = {name: getattr(ctypes, kind) for name, kind in INTEGERS.items()}
    for name, body in re.findall(r"struct (\w+) \{(.*?)\n\};", re.sub("//.*", "", text), re.DOTALL):
        fields = re.findall(r"(?:const )?(\w+)\s?(\*?) (\w+);", body)
        known = [(f, ctypes.c_void_p if pointer else structs[kind]) for kind, pointer, f in fields]
        structs[name] = type(name, (ctypes.Structure,), {"_fields_": known})
    return {name: made for name, made in structs.items() if name not in INTEGERS}


def size_checks(structs: dict[str, Any]) -> str:
    """Write what no compiler accepts that gives the structs other sizes."""
    sizes = ((name, ctypes.sizeof(made)) for name, made in structs.items())
    return "".join(f"static_assert(sizeof({SPACE}{name}) == {size});\n" for name, size in sizes)


def sources(constants: dict[str, int]) -> dict[str, str]:
    """Read the kernels, with these constants in place of their own."""
    paths = [path for path in KERNELS.iterdir() if path.suffix in {".h", ".cuh"}]
    texts = {path.name: path.read_text(encoding="utf-8") for path in paths}
    for name, value in constants.items():
        known = rf"(constexpr int {name} = )\d+;"
        texts["arguments.h"], count = re.subn(known, rf"\g<1>{value};", texts["arguments.h"])
        if count != 1:
            message = f"arguments.h must have the constant {name} once, but has it {count} times"
            raise ValueError(message)
    return texts


def constants_of(texts: dict[str, str]) -> dict[str, int]:
    """Read the constants of the kernels."""
    found = re.findall(r"constexpr int (\w+) = (\d+);", texts["arguments.h"])
    return {name: int(value) for name, value in found}


def open_nvrtc() -> ctypes.CDLL:
    """Open the NVRTC of PyTorch, else that of the system; OSError if there is none."""
    torch = importlib.util.find_spec("torch")
    site = Path(torch.origin).parents[1] if torch and torch.origin else Path()
    for place in ("nvidia/cu13", "nvidia/cu12", "nvidia/cuda_nvrtc", "torch"):
        for file in sorted(site.glob(f"{place}/lib/libnvrtc.so.*")):
            # It opens a second file by its name alone, which is found if it is open already.
            for builtins in file.parent.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins))
            return ctypes.CDLL(str(file))
    try:
        return ctypes.CDLL("libnvrtc.so.13")
    except OSError:
        return ctypes.CDLL("libnvrtc.so.12")


class Code(NamedTuple):
    """Code of kernels, or why there is none; symbols, registers and spilled bytes by name."""

    kernels: dict[str, tuple[str, int, int]]
    code: bytes
    error: str = ""


class Built(NamedTuple):
    """A variant with its code."""

    variant: Variant
    kernels: dict[str, tuple[str, int, int]]
    code: bytes
    error: str = ""


def _resources(log: str, symbol: str) -> tuple[int, int]:
    """Find registers and spilled bytes; functions that are not inlined have lines behind."""
    part = log.partition(f"Compiling entry function '{symbol}'")[2]
    found = re.search(
        r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+)", part, re.DOTALL
    )
    return (int(found[3]), int(found[1]) + int(found[2])) if found else (-1, -1)


def compile_kernels(
    expressions: dict[str, str], architecture: str, constants: dict[str, int]
) -> Code:
    """Compile kernels into one file of code, and read the assembler's log."""
    lib, program = open_nvrtc(), ctypes.c_void_p()
    lib.nvrtcGetErrorString.restype = ctypes.c_char_p

    def check(status: int) -> None:
        if status:
            raise RuntimeError(lib.nvrtcGetErrorString(status).decode())

    def output(what: str) -> bytes:
        size = ctypes.c_size_t()
        check(getattr(lib, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        check(getattr(lib, f"nvrtcGet{what}")(program, buffer))
        return buffer.raw

    def strings(texts: Any) -> Any:
        return (ctypes.c_char_p * len(texts))(*(text.encode() for text in texts))

    texts = sources(constants)
    main = '#include "kernels.cuh"\n' + size_checks(read_structs(texts["arguments.h"]))
    headers = (len(texts), strings(texts.values()), strings(texts))
    check(lib.nvrtcCreateProgram(ctypes.byref(program), main.encode(), b"main.cu", *headers))
    for expression in expressions.values():
        check(lib.nvrtcAddNameExpression(program, expression.encode()))
    options = [f"--gpu-architecture={architecture}", "--std=c++20", "--ptxas-options=-v"]
    status = lib.nvrtcCompileProgram(program, len(options), strings(options))
    log = output("ProgramLog").rstrip(b"\0").decode()
    if status:
        return Code({}, b"", log)
    kernels, lowered = {}, ctypes.c_char_p()
    for name, expression in expressions.items():
        check(lib.nvrtcGetLoweredName(program, expression.encode(), ctypes.byref(lowered)))
        symbol = (lowered.value or b"").decode()
        kernels[name] = (symbol, *_resources(log, symbol))
    return Code(kernels, output("CUBIN"))


def compile_variant(variant: Variant, architecture: str) -> Built:
    """Compile all kernels of a variant."""
    code = compile_kernels(variant.expressions(), architecture, dict(variant.constants))
    return Built(variant, *code)
