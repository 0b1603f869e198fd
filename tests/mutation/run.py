"""Mutation testing: breaks the C++ sources line by line and lists what no test notices.

universalmutator makes the mutants by the rules of cpp.rules. Each is compiled in a copy of the
sources, only the object files that show it, and the tests that should notice run until the first
fails. A mutant whose machine code is that of the original, or that equivalent.json explains, is
equivalent; one that passes all of its tests survives.

    python tests/mutation/run.py                          a sample of every file
    python tests/mutation/run.py src/torch/check.cpp      of one
    python tests/mutation/run.py --all src/kernels/cpu/rows.h:96
                                                          all mutants of one line
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import importlib.metadata
import io
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from universalmutator.mutator import mutants_regexp

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
WORK = ROOT / "build" / "mutation"
SOURCE, BUILD, SITE, ORIGINALS = (WORK / name for name in ("source", "build", "site", "originals"))
KERNEL_TESTS = "tests/kernels/cpu/spgrad_kernel_tests"
TORCH_TESTS = "tests/torch/spgrad_torch_tests"
LOADER_TESTS = "tests/torch/spgrad_cuda_loader_tests"
MEMORY = 24 << 30  # bytes of address space; PyTorch's libraries alone map several GB
COMPILE_SECONDS = 300
KILLED, TIMED_OUT, SURVIVED = "killed", "timed out", "survived"
EQUIVALENT, INVALID = "equivalent", "does not compile"


@dataclass(frozen=True)
class Stage:
    """Object files to compile, by a part of their names, and the tests that run on them.

    `types` restricts the typed tests of the kernels to one dtype; others run all the same.
    `python` are files of tests.
    """

    objects: tuple[str, ...]
    program: str = TORCH_TESTS
    types: str = ""
    python: tuple[str, ...] = ()
    seconds: int = 120


def kernels_of(target: str, scalar: str) -> Stage:
    """Give the stage for the kernels of one instruction set and dtype."""
    library = "spgrad_kernels_" + re.sub(r"\W", "_", f"{target}_{scalar}")
    return Stage((f"{library}.dir/",), KERNEL_TESTS, scalar)


# Complex kernels compile fastest, and see most; reals have packed tiles; numbers of 16 bits
# have conversions of their own.
COMPLEX = kernels_of("baseline", "std::complex<double>")
FLOAT = kernels_of("baseline", "float")
HALVES = tuple(kernels_of(*pair) for pair in (("baseline", "Float16"), ("baseline", "BFloat16")))


def operators(*objects: str, python: str = "") -> tuple[Stage, ...]:
    """Give the stages for files of src/torch: the tests in C++, then some in Python."""
    names = tuple(f"tests/python/test_{name}.py" for name in python.split())
    return (Stage(objects), Stage(objects, python=names, seconds=300))


def loader(name: str) -> tuple[Stage, ...]:
    """Give the stages for a file of what compiles the CUDA kernels."""
    objects = (f"/spgrad_cuda_loader.dir/{name}.cpp.o",)
    return (
        Stage(objects, LOADER_TESTS),
        Stage(objects, python=("tests/python/cuda/test_info.py",), seconds=300),
    )


# Of src/torch/cuda, what can be tested in this build, which has no device and no emulation: the
# rest runs in spgrad_on_emulation only. The tests of src/kernels/cuda include its files, so that no
# object file of the library shows a mutant.
STAGES = {
    "src/kernels/cpu/backward.h": (COMPLEX, FLOAT),
    "src/kernels/cpu/by_rows.cpp": (Stage(("/spgrad_kernels.dir/by_rows.cpp.o",), KERNEL_TESTS),),
    "src/kernels/cpu/dispatch.cpp": (Stage(("/dispatch.cpp.o",), KERNEL_TESTS),),
    "src/kernels/cpu/extremum.cpp": (Stage(("/spgrad_kernels.dir/extremum.cpp.o",), KERNEL_TESTS),),
    "src/kernels/cpu/number.h": (COMPLEX, *HALVES),
    "src/kernels/cpu/partition.h": (
        Stage(("/spgrad_kernels.dir/products.cpp.o", "/partition_test.cpp.o"), KERNEL_TESTS),
    ),
    "src/kernels/cpu/products.cpp": (Stage(("/spgrad_kernels.dir/products.cpp.o",), KERNEL_TESTS),),
    "src/kernels/cpu/row_offsets.h": (FLOAT,),
    "src/kernels/cpu/rows.h": (COMPLEX, FLOAT),
    "src/kernels/cpu/scatter.h": (COMPLEX, FLOAT),
    "src/kernels/cpu/sddmm.h": (COMPLEX, FLOAT),
    "src/kernels/cpu/selected.cpp": (Stage(("/spgrad_kernels.dir/selected.cpp.o",), KERNEL_TESTS),),
    "src/kernels/cpu/spmm.h": (COMPLEX, FLOAT),
    "src/kernels/cpu/structure.cpp": (Stage(("/structure.cpp.o",), KERNEL_TESTS),),
    "src/kernels/cpu/sums.h": (COMPLEX, FLOAT),
    "src/kernels/cpu/tile.h": (COMPLEX, FLOAT),
    "src/kernels/cpu/vector.h": (COMPLEX, FLOAT),
    "src/torch/check.cpp": operators(
        "/check.cpp.o", python="errors malformed odd_tensors pattern operators"
    ),
    "src/torch/index_dtype.h": operators("/cpu/grouped.cpp.o", python="index_dtypes"),
    "src/torch/malformed.cpp": operators("/malformed.cpp.o", python="errors malformed pattern"),
    "src/torch/cpu/grouped.cpp": operators(
        "/cpu/grouped.cpp.o", python="product gradients malformed pattern index_dtypes"
    ),
    "src/torch/cpu/parallel.h": operators(
        "/cpu/products.cpp.o",
        "/cpu/grouped.cpp.o",
        "/cpu/parallel_test.cpp.o",
        python="product malformed",
    ),
    "src/torch/cpu/products.cpp": operators(
        "/cpu/products.cpp.o",
        python="product layouts_and_strides gradients malformed memory pattern heads",
    ),
    "src/torch/constructor.cpp": operators("/constructor.cpp.o", python="made_from_values"),
    "src/torch/sparse_gradient.cpp": operators(
        "/sparse_gradient.cpp.o", python="autograd gradients training made_from_values"
    ),
    "src/torch/sparse_mm.cpp": operators(
        "/sparse_mm.cpp.o", python="product pattern autograd sddmm heads"
    ),
    "src/torch/matmul.cpp": operators("/matmul.cpp.o", python="matmul"),
    "src/torch/softmax.cpp": operators("/softmax.cpp.o", python="softmax"),
    "src/torch/specified_values.cpp": operators(
        "/specified_values.cpp.o", python="autograd gradients training made_from_values"
    ),
    "src/torch/autograd.cpp": operators(
        "/autograd.cpp.o", python="autograd gradients transforms memory"
    ),
    "src/torch/autocast.cpp": operators("/autocast.cpp.o", python="autocast"),
    "src/torch/vmap.cpp": operators("/vmap.cpp.o", python="vmap index_dtypes sddmm heads"),
    "src/torch/with_values.cpp": operators("/with_values.cpp.o", python="sddmm"),
    "src/torch/cpu/memory.cpp": operators("/cpu/memory.cpp.o", python="kept_memory memory"),
    "src/torch/cpu/memory_limits.cpp": operators(
        "/cpu/memory_limits.cpp.o", "/cpu/memory_limits_test.cpp.o", python="kept_memory"
    ),
    "src/torch/cpu/pattern.cpp": operators("/cpu/pattern.cpp.o", python="pattern"),
    "src/torch/cuda/binaries.cpp": loader("binaries"),
    "src/torch/cuda/cache.cpp": loader("cache"),
    "src/torch/cuda/compile.cpp": loader("compile"),
    "src/torch/cuda/library.cpp": loader("library"),
}


@dataclass(frozen=True)
class Mutant:
    """A changed line."""

    file: str
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        """Show the line before and after."""
        return f"{self.file}:{self.line}\n    - {self.before.strip()}\n    + {self.after.strip()}"


def mutants_of(file: str) -> list[Mutant]:
    """Make all mutants of a file."""
    lines = (ROOT / file).read_text().splitlines(keepends=True)
    with contextlib.redirect_stdout(io.StringIO()):
        found = mutants_regexp(
            lines, [str(HERE / "cpp.rules")], ignorePatterns=[], ignoreStringOnly=True
        )
    return [Mutant(file, number, lines[number - 1], after) for number, after, *_ in found]


def is_explained(mutant: Mutant) -> bool:
    """Whether equivalent.json has the mutant, or all mutants of its line, under a reason."""
    before, after = mutant.before.strip(), mutant.after.strip()
    reasons = json.loads((HERE / "equivalent.json").read_text()).get(mutant.file, {})
    return any(before in found or [before, after] in found for found in reasons.values())


def limit_memory() -> None:
    """Bound the memory of a child, which a mutant may ask for without end."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def succeeds(
    command: list[str] | str,
    folder: Path,
    seconds: float,
    environment: dict[str, str] | None = None,
) -> bool:
    """Run a command, and end it with all of its children when its time is over."""
    with subprocess.Popen(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=limit_memory,  # noqa: PLW1509 - no threads here
    ) as process:
        try:
            return process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise


class Workshop:
    """A copy of the sources, built once, in which one file at a time is broken."""

    def __init__(self) -> None:
        """Copy, configure and build."""
        listed = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        for name in listed.stdout.split():
            target = SOURCE / name
            if not (target.exists() and filecmp.cmp(ROOT / name, target, shallow=False)):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, target)
        # SKBUILD makes _build.py, which Python reads.
        options = ["-DSPGRAD_TESTS=ON", "-DSPGRAD_WERROR=OFF", "-DSKBUILD=ON", "-GNinja"]
        options += [f"-DPython_EXECUTABLE={sys.executable}"]
        # Each object file is compiled by itself.
        options += ["-DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON", "-DSPGRAD_UNITY_BUILD=OFF"]
        # -O3 takes four times as long, and makes no other results.
        options += ["-DCMAKE_CXX_FLAGS_RELEASE=-O1", "-DSPGRAD_KERNELS_OPTIMISATION=-O1"]
        subprocess.run(["cmake", "-S", SOURCE, "-B", BUILD, *options], check=True)
        subprocess.run(["cmake", "--build", BUILD], check=True)
        package = SITE / "spgrad"
        shutil.copytree(SOURCE / "python/spgrad", package, dirs_exist_ok=True)
        shutil.copyfile(BUILD / "_build.py", package / "_build.py")
        series = ".".join(importlib.metadata.version("torch").split(".")[:2])
        library = package / series / "lib" / "libspgrad.so"
        library.parent.mkdir(parents=True, exist_ok=True)
        library.unlink(missing_ok=True)
        library.symlink_to(BUILD / "src/torch/libspgrad.so")
        # Workers of the compiler do not start within the limit of memory.
        self.environment = os.environ | {
            "PYTHONPATH": str(SITE),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }
        self.compilations: dict[str, str] = {}
        self.links: dict[str, list[str]] = {}
        for program in (KERNEL_TESTS, TORCH_TESTS, LOADER_TESTS):
            self.links[program] = []
            listed = subprocess.run(
                ["ninja", "-t", "commands", program],
                cwd=BUILD,
                check=True,
                capture_output=True,
                text=True,
            )
            for command in listed.stdout.splitlines():
                compiled = re.search(r" -o (\S+\.o) -c ", command)
                if compiled:
                    self.compilations[compiled[1]] = command
                else:
                    self.links[program].append(command)

    def objects_of(self, stage: Stage) -> list[str]:
        """Name the object files of a stage."""
        return [name for name in self.compilations if any(part in name for part in stage.objects)]

    def tests_of(self, stage: Stage) -> list[str]:
        """Give the command that runs the tests of a stage."""
        if stage.python:
            flags = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not timed"]
            return [sys.executable, "-m", "pytest", *flags, *stage.python]
        command = [str(BUILD / stage.program), "--gtest_fail_fast", "--gtest_brief=1"]
        if stage.types:
            listed = subprocess.run(
                [command[0], "--gtest_list_tests"], check=True, capture_output=True, text=True
            )
            suites = re.findall(r"^(\S+)(?:  # TypeParam = (.*))?$", listed.stdout, re.MULTILINE)
            wanted = re.compile(rf"\b{stage.types}([,>]|$)")
            chosen = [name for name, types in suites if not types or wanted.search(types)]
            command.append("--gtest_filter=" + ":".join(f"{name}*" for name in chosen))
        return command

    def passes(self, stage: Stage) -> bool:
        """Whether the tests of a stage pass."""
        return succeeds(self.tests_of(stage), SOURCE, stage.seconds, self.environment)

    def outcome(self, mutant: Mutant) -> str:
        """Break the file, run the stages until one notices, and put everything back."""
        path = SOURCE / mutant.file
        text, times = path.read_text(), path.stat()
        lines = text.splitlines(keepends=True)
        lines[mutant.line - 1] = mutant.after
        path.write_text("".join(lines))
        kept: list[str] = []
        try:
            return self._outcome(STAGES[mutant.file], kept)
        finally:
            path.write_text(text)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # nothing to build next time
            for name in kept:  # as new files, so that what was linked from others is linked again
                shutil.copyfile(ORIGINALS / name, BUILD / name)

    def _outcome(self, stages: tuple[Stage, ...], kept: list[str]) -> str:
        changed = False
        try:
            for stage in stages:
                for name in self.objects_of(stage):
                    if name not in kept:
                        (ORIGINALS / name).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy2(BUILD / name, ORIGINALS / name)
                        kept.append(name)
                        if not succeeds(self.compilations[name], BUILD, COMPILE_SECONDS):
                            return INVALID
                if all(
                    filecmp.cmp(BUILD / name, ORIGINALS / name, shallow=False)
                    for name in self.objects_of(stage)
                ):
                    continue  # the same machine code
                changed = True
                linked = all(succeeds(c, BUILD, COMPILE_SECONDS) for c in self.links[stage.program])
                if not (linked and self.passes(stage)):
                    return KILLED
        except subprocess.TimeoutExpired:
            return TIMED_OUT
        return SURVIVED if changed else EQUIVALENT


def chosen_mutants(place: str, options: argparse.Namespace) -> list[Mutant]:
    """Give the mutants of a file, or of FILE:LINE, that are to be tried."""
    file, _, line = place.partition(":")
    mutants = [m for m in mutants_of(file) if not is_explained(m) and line in ("", str(m.line))]
    if options.all or len(mutants) <= options.sample:
        return mutants
    chosen = random.Random(f"{options.seed} {file}").sample(mutants, options.sample)  # noqa: S311
    return sorted(chosen, key=lambda mutant: mutant.line)


def main() -> None:
    """Try the mutants, and report those that survive."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("places", nargs="*", default=list(STAGES), help="FILE or FILE:LINE")
    parser.add_argument("--all", action="store_true", help="all mutants, not a sample")
    parser.add_argument("--sample", type=int, default=20, help="mutants of each file")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    options = parser.parse_args()

    workshop = Workshop()
    files = [place.partition(":")[0] for place in options.places]
    for stage in {stage for file in files for stage in STAGES[file]}:
        if not workshop.passes(stage):
            sys.exit(f"fails without any mutant: {workshop.tests_of(stage)}")
    survivors: list[Mutant] = []
    total: Counter[str] = Counter()
    for place in options.places:
        counts: Counter[str] = Counter()
        for mutant in chosen_mutants(place, options):
            outcome = workshop.outcome(mutant)
            print(f"{outcome}: {mutant}", flush=True)
            counts[outcome] += 1
            if outcome == SURVIVED:
                survivors.append(mutant)
        print(place, dict(counts), flush=True)
        total += counts
    print("\nsurvivors:", *survivors, sep="\n")
    print("total", dict(total))
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
