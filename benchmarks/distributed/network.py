"""Forward and backward over links of limited speed, beside the same composed of PyTorch's parts.

``python -m benchmarks.distributed.network``, by root: each rank has a network namespace.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.distributed.namespaces import DEVICE, address, namespaces, within
from benchmarks.operator.report import table

SECONDS = 300  # that all ranks together may take


def measure(ranks: int, rate: str, options: list[str]) -> list[dict[str, Any]]:
    """Run all ranks, each in a namespace; give what they tell.

    Raises:
        SystemExit: There are no namespaces, or a rank failed.

    """
    with tempfile.TemporaryDirectory() as folder, namespaces(ranks, rate) as names:
        output = Path(folder) / "told.json"
        processes = []
        for rank, name in enumerate(names):
            settings = {
                "RANK": str(rank),
                "WORLD_SIZE": str(ranks),
                "MASTER_ADDR": address(0),
                "MASTER_PORT": "29500",
                "GLOO_SOCKET_IFNAME": DEVICE,
                "OMP_NUM_THREADS": "1",
            }
            step = [sys.executable, "-m", "benchmarks.distributed.step", "--output", str(output)]
            command = [*within(name), *step, *options]
            processes.append(subprocess.Popen(command, env=os.environ | settings))  # noqa: S603
        try:
            failed = [rank for rank, each in enumerate(processes) if each.wait(SECONDS)]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        if failed:
            message = f"ranks {failed} failed"
            raise SystemExit(message)
        told: list[dict[str, Any]] = json.loads(output.read_text())
    return told


def report(told: list[dict[str, Any]]) -> str:
    """Lay out times of the slowest rank, and bytes of all."""
    slowest = {name: max(rank["seconds"][name] for rank in told) for name in told[0]["seconds"]}
    own = slowest["RowSharded"]
    rows = [(name, f"{1e3 * s:.1f}", f"{s / own:.2f}") for name, s in slowest.items()]
    needed = 2 * sum(rank["halo"] for rank in told)  # there and back
    counted = sum(rank["over_link"] for rank in told)
    return (
        table(("forward and backward", "ms", "over RowSharded"), rows)
        + f"\nOver all links: {counted / 1e6:.2f} MB; the rows that are needed have "
        f"{needed / 1e6:.2f} MB ({counted / needed:.3f} times as many, with all headers).\n"
    )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="Products over links of limited speed.")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--rate", default="1gbit", help="of each link, as tc has it")
    options, of_step = parser.parse_known_args()
    told = measure(options.ranks, options.rate, of_step)
    print(f"{options.ranks} ranks, {told[0]['rows']:,} rows each, {options.rate}\n")
    print(report(told))


if __name__ == "__main__":
    main()
