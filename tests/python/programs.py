"""Programs that run in a process of their own, where they may crash or be killed."""

import os
import subprocess
import sys

SETTINGS = """
import torch
import spgrad

torch.sparse.check_sparse_tensor_invariants.disable()
"""


def run_python(*arguments, seconds=600, **environment):
    """Run Python with these arguments, and give its exit status, output and errors."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


def run(program, *arguments, **options):
    """Run the text of a program after SETTINGS."""
    return run_python("-c", SETTINGS + program, *arguments, **options)


def output_of(program, *arguments, **options):
    """Run the text of a program that must succeed, and give the words of its output."""
    done = run(program, *arguments, **options)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.split()
