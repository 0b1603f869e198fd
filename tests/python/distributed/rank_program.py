"""What a rank in a process of its own runs."""

import datetime as dt
import os
import time
import traceback

import matrices
import torch
import torch.distributed
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import spgrad
import spgrad.distributed

NAMES = {
    "DTensor": DTensor,
    "Replicate": Replicate,
    "RowSharded": spgrad.distributed.RowSharded,
    "Shard": Shard,
    "dcp": dcp,
    "distribute_tensor": distribute_tensor,
    "matrices": matrices,
    "os": os,
    "spgrad": spgrad,
    "time": time,
    "torch": torch,
}


TIMEOUT = dt.timedelta(seconds=20)


def run(rank, size, store, program, *arguments, answer):
    """Run the text of a program, which has what NAMES has, and send its `outcome`."""
    torch.set_num_threads(1)  # threads do not live on in forked processes
    torch.distributed.init_process_group(
        "gloo",
        store=torch.distributed.FileStore(store, size),
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
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


def launch(size, restarts, program, *arguments, answer):
    """Let what is behind torchrun start ranks, and start them again where one of them ends.

    They are forked from this process. Send the `outcome` of each.
    """
    torch.set_num_threads(1)
    # Else, ranks that are started again find the addresses of those that ended (PyTorch 2.15).
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=size,
        run_id="test",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        start_method="fork",
        max_restarts=restarts,
        monitor_interval=0.05,
    )
    outcomes = elastic_launch(config, _launched)(program, *arguments)
    answer.send([outcomes[rank] for rank in range(size)])


def _launched(program, *arguments):
    torch.distributed.init_process_group("gloo", timeout=TIMEOUT)
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    mesh = init_device_mesh("cpu", (size,))
    names = NAMES | {"rank": rank, "size": size, "mesh": mesh, "arguments": arguments}
    exec(program, names)  # noqa: S102 - the texts of the tests
    return names["outcome"]
