"""Measures the memory that one forward and backward pass needs beyond its operands."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import scipy.sparse

from demo.contenders import Contender, backward
from demo.memory import peak_resident_bytes
from demo.problem import Operands, Problem


def peak_extra_bytes(contender: Contender, operands_path: Path) -> int:
    """Run the contender in a fresh process and return the growth of its peak memory.

    A process's peak never falls, so that every contender needs a process of its own.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        try:
            return executor.submit(_measure, contender, operands_path).result()
        except BrokenProcessPool as error:
            message = f"{contender.name} was killed, probably because memory ran out"
            raise SystemExit(message) from error


def _measure(contender: Contender, operands_path: Path) -> int:
    # A small product first, so that loading code is not counted.
    small = Problem("identity", scipy.sparse.csr_array(np.eye(64)))
    _forward_and_backward(contender, Operands.random(small, 16))
    operands = Operands.load(operands_path)
    before = peak_resident_bytes()
    _forward_and_backward(contender, operands)
    return peak_resident_bytes() - before


def _forward_and_backward(contender: Contender, operands: Operands) -> None:
    matrix, dense = contender.leaves(operands)
    product = contender.multiply(matrix, dense)
    backward(product, matrix, dense, operands.product_gradient)
