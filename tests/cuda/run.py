"""All that is shown on a CUDA device in one run: ``python tests/cuda/run.py --output FOLDER``.

Every step has its own limit of time and its own log; one that fails or takes too long does not keep
the others from running. The summary at the end says how each went.
"""

from __future__ import annotations

import argparse
import collections
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
METRICS = (
    "gpu__time_duration.sum",
    "dram__bytes.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "lts__t_bytes.sum",
    "lts__t_sector_hit_rate.pct",
    "l1tex__t_sector_hit_rate.pct",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "sm__inst_executed.avg.per_cycle_elapsed",
    "launch__registers_per_thread",
)
# Other versions of Python and PyTorch may warn of what these tests are not about.
PYTEST = (
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:benchmark",  # a plugin that warns in each process
    "-W",
    "default",
    "--continue-on-collection-errors",
    "tests/python",
    "--backend=cuda",
)
SANITIZER = ("compute-sanitizer", "--error-exitcode", "99", "--launch-timeout", "60")


@dataclass(frozen=True)
class Step:
    """A command, how long it may take, and how much of its log is shown."""

    name: str
    seconds: float
    command: tuple[str, ...]
    lines: int = 12
    settings: tuple[tuple[str, str], ...] = ()


def steps(output: Path, scale: float, processes: int, device: str) -> list[Step]:
    """List what there is to do, with the limits multiplied by a number."""
    python = sys.executable
    on = ("--device", device)
    small = ("--size", "full" if device == "cuda" else "tiny")
    sanity = (python, "tests/cuda/sanity.py", *on)
    bench_seconds = 120 * scale
    bench = (python, "-m", "benchmarks.operator.cuda", *on, *small, "--seconds", f"{bench_seconds}")
    profiler = (
        "ncu",
        "--clock-control",
        "none",
        "--kernel-name-base",
        "demangled",
        "--kernel-name",
        "regex:spgrad",
        "--metrics",
        ",".join(METRICS),
        "--csv",
    )
    # A pool that never keeps memory: otherwise accesses beyond a tensor stay within the pool.
    uncached = (("PYTORCH_NO_CUDA_MEMORY_CACHING", "1"),)
    # On all cores, so that nothing afterwards waits for the compiler.
    compiled = (python, "-m", "spgrad.cuda", "precompile")
    ranks = (python, "tests/cuda/ranks.py", *on)
    tests = (python, *PYTEST, "-n", str(processes))
    few_threads = (("OMP_NUM_THREADS", "2"),)  # of each process
    return [
        *([Step("precompile", 60 * scale, compiled, 2)] if device == "cuda" else []),
        Step("sanity", 45 * scale, sanity, 20),
        Step("ranks", 20 * scale + 15, (*ranks, "--seconds", f"{20 * scale}"), 24),
        Step("bench", bench_seconds + 30, (*bench, "--output", str(output / "bench.json")), 400),
        Step("tests", 120 * scale, (*tests, "--maxfail=60"), 40, few_threads),
        Step("memcheck", 60 * scale, (*SANITIZER, *sanity, "--few"), 12, uncached),
        Step("racecheck", 60 * scale, (*SANITIZER, "--tool", "racecheck", *sanity, "--few"), 12),
        Step("profile", 60 * scale, (*profiler, python, "tests/cuda/products.py", *on, *small), 0),
    ]


def run(step: Step, output: Path) -> str:
    """Run a step, and say in a word how it went."""
    if shutil.which(step.command[0]) is None:
        return f"left out: no {step.command[0]}"
    environment = os.environ | dict(step.settings) | {"PYTHONUNBUFFERED": "1"}
    environment.setdefault("SPGRAD_CACHE", str(output / "cache"))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    with (output / f"{step.name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            step.command,
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(step.seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"stopped after {step.seconds:.0f} s"
    return "passed" if code == 0 else f"FAILED with status {code}"


def table(log: Path) -> list[str]:
    """Read the metrics of each kernel from the profiler's log; the last launch of each counts."""
    lines = [
        line
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith('"')
    ]
    launches: dict[str, dict[str, str]] = collections.defaultdict(dict)
    kernels: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(lines):
        metrics = launches[row["ID"]]
        metrics[row["Metric Name"]] = f"{row['Metric Value']} {row['Metric Unit']}".strip()
        kernels[f"{row['Kernel Name'][:160]} grid {row.get('Grid Size', '?')}"] = metrics
    return [
        line
        for name, metrics in kernels.items()
        for line in (name, *(f"    {metric:52} {value}" for metric, value in metrics.items()))
    ]


def shown(step: Step, output: Path) -> list[str]:
    """Give the end of a log, or what is made of it."""
    log = output / f"{step.name}.log"
    if not log.exists():
        return []
    if step.name == "profile":
        return table(log) or log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-step.lines :]


def main() -> None:
    """Run the steps that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--steps", help="names with commas between; all, if left out")
    parser.add_argument("--seconds", type=float, default=470, help="of all together (470)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the limits of the steps")
    cores = min(len(os.sched_getaffinity(0)), 16)  # each has a context on the device
    parser.add_argument(
        "--processes", type=int, default=cores, help=f"that run tests side by side ({cores})"
    )
    parser.add_argument("--device", default="cuda", help="cpu: to rehearse")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    listed = steps(output, arguments.scale, arguments.processes, arguments.device)
    if arguments.steps:
        names = arguments.steps.split(",")
        unknown = set(names) - {step.name for step in listed}
        if unknown:
            parser.error(f"no steps {sorted(unknown)}; there are {[s.name for s in listed]}")
        listed = [step for step in listed if step.name in names]
    begin = time.monotonic()
    summary = []
    for step in listed:
        left = arguments.seconds - (time.monotonic() - begin)
        start = time.monotonic()
        if left < 5:
            outcome = "left out: no time"
        else:
            limited = Step(
                step.name, min(step.seconds, left), step.command, step.lines, step.settings
            )
            print(f"== {step.name}", flush=True)
            outcome = run(limited, output)
            print("\n".join(shown(step, output)), flush=True)
        summary.append(f"{step.name:10} {time.monotonic() - start:6.1f} s  {outcome}")
        print(summary[-1], flush=True)
        text = "\n".join(summary) + "\n"
        (output / "summary.txt").write_text(text, encoding="utf-8")
    print("== summary", *summary, sep="\n", flush=True)
    failed = any("FAILED" in line or "stopped" in line for line in summary)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
