"""A few products on a CUDA device, for a profiler: with gradients, with and without a pattern."""

import argparse

import torch

from benchmarks.operator.contenders import find, silence_warnings
from benchmarks.operator.modes import Mode, make_call
from benchmarks.operator.workloads import workloads


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", default="full")
    parser.add_argument("--workload", default="fem")
    arguments = parser.parse_args()
    silence_warnings()
    (made,) = [w for w in workloads(arguments.size) if w.name == arguments.workload]
    problem = made.make().on(arguments.device).to(torch.float32)
    for name, mode in (
        ("spgrad CSR int32", Mode.BOTH),
        ("spgrad Pattern", Mode.BOTH),
        ("spgrad Pattern", Mode.GRADIENT_A),
    ):
        call = make_call(find(name).prepare(problem), problem, mode)
        for _ in range(2):
            call()


if __name__ == "__main__":
    main()
