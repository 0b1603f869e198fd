"""Programs that run in a process of their own, where they may crash or be killed."""

import os
import subprocess
import sys

SETTINGS = """
import torch
import spgrad

torch.sparse.check_sparse_tensor_invariants.disable()
"""


def run(program, *arguments, seconds=300, **environment):
    """Run the text of a program after SETTINGS, and give its exit status, output and errors."""
    command = [sys.executable, "-W", "ignore", "-c", SETTINGS + program]
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


def output_of(program, *arguments, **options):
    """Run the text of a program that must succeed, and give its output."""
    done = run(program, *arguments, **options)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.split()
