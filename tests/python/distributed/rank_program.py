"""What a rank in a process of its own runs; imported once, before processes are forked from it."""

import datetime as dt
import os
import time
import traceback

import matrices
import torch
import torch.distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import spgrad
import spgrad.distributed

NAMES = {
    "DTensor": DTensor,
    "Replicate": Replicate,
    "RowSharded": spgrad.distributed.RowSharded,
    "Shard": Shard,
    "distribute_tensor": distribute_tensor,
    "matrices": matrices,
    "os": os,
    "spgrad": spgrad,
    "time": time,
    "torch": torch,
}


def run(rank, size, store, program, *arguments, answer):
    """Run the text of a program, which has what NAMES has, and send its `outcome`."""
    torch.set_num_threads(1)  # threads do not live on in forked processes
    torch.distributed.init_process_group(
        "gloo",
        store=torch.distributed.FileStore(store, size),
        rank=rank,
        world_size=size,
        timeout=dt.timedelta(seconds=20),
    )
    mesh = init_device_mesh("cpu", (size,))
    names = NAMES | {"rank": rank, "size": size, "mesh": mesh, "arguments": arguments}
    try:
        exec(program, names)  # noqa: S102 - the texts of the tests
    except BaseException:  # noqa: BLE001 - the test shows it
        answer.send((False, traceback.format_exc()))
    else:
        answer.send((True, names.get("outcome")))
    answer.close()
    os._exit(0)  # without waiting for ranks that may be gone
