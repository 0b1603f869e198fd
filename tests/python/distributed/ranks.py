"""Ranks as threads of this process, or as processes of their own."""

import contextlib
import multiprocessing
import threading
import time

import rank_program
import torch
import torch.distributed
from torch.distributed.checkpoint import _nested_dict
from torch.distributed.device_mesh import init_device_mesh

# Of PyTorch's own tests, and private: only this file knows it.
from torch.testing._internal.distributed import multi_threaded_pg as threaded

SECONDS = 60

# What takes long to import, once for all processes; the last are for DTensors and forward mode.
IMPORTED = [
    "spgrad.distributed",
    "torch._dynamo",
    "torch._decomp.decompositions_for_jvp",
]


@contextlib.contextmanager
def _threads_as_ranks():
    torch._C._distributed_c10d._set_thread_isolation_mode(True)
    threaded._install_threaded_pg()
    # One that loads a checkpoint sets, for a moment and for all threads, that names are made as in
    # PyTorch 2.3: others then miss their keys.
    names_of_2_3 = _nested_dict.traverse_state_dict_v_2_3
    _nested_dict.traverse_state_dict_v_2_3 = _nested_dict.traverse_state_dict
    try:
        yield torch.distributed.HashStore()
    finally:
        _nested_dict.traverse_state_dict_v_2_3 = names_of_2_3
        threaded._uninstall_threaded_pg()
        torch._C._distributed_c10d._set_thread_isolation_mode(False)
        threaded.ProcessLocalGroup.reset()


def on_threads(size, function, *arguments):
    """Call function(mesh, *arguments) on so many ranks, and list what each gives."""
    results, errors = [None] * size, {}

    def run(rank, store):
        try:
            options = {"rank": rank, "world_size": size, "store": store}
            torch.distributed.init_process_group("threaded", **options)
            results[rank] = function(init_device_mesh("cpu", (size,)), *arguments)
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            errors[rank] = error
            threaded.ProcessLocalGroup.exception_handle(error)

    with _threads_as_ranks() as store:
        threads = [
            threading.Thread(target=run, args=(rank, store), daemon=True) for rank in range(size)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
    # The others broke off since the first did.
    for error in sorted(errors.values(), key=lambda error: not isinstance(error, Exception)):
        raise error
    assert not any(thread.is_alive() for thread in threads), "a rank waits in vain"
    return results


def outcomes_of(size, program, folder, *arguments):
    """Run the text of a program on so many ranks, all of which must succeed; list outcomes."""
    results = on_processes(size, program, folder, *arguments)
    for _, succeeded, result in results:
        assert succeeded, result
    return [result for *_, result in results]


def _forkserver():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def on_processes(size, program, folder, *arguments):
    """Run the text of a program on so many ranks; give exit status, success and outcome of each.

    They are forked from a process that has imported everything. One that does not answer in time
    is killed, and has no success.
    """
    context = _forkserver()
    pipes = [context.Pipe(duplex=False) for _ in range(size)]
    processes = [
        context.Process(
            target=rank_program.run,
            args=(rank, size, str(folder / "store"), program, *arguments),
            kwargs={"answer": answer},
        )
        for rank, (_, answer) in enumerate(pipes)
    ]
    for process, (_, answer) in zip(processes, pipes, strict=True):
        process.start()
        answer.close()
    last = time.monotonic() + SECONDS
    results = []
    for process, (answer, _) in zip(processes, pipes, strict=True):
        result = (False, "no answer")
        with contextlib.suppress(EOFError):
            if answer.poll(max(0, last - time.monotonic())):
                result = answer.recv()
        process.join(5)
        process.kill()
        process.join()
        results.append((process.exitcode, *result))
    return results


def on_restarted_processes(size, restarts, program, *arguments):
    """Run the text of a program as torchrun would; give the outcome of each rank at last."""
    context = _forkserver()
    outcomes, answer = context.Pipe(duplex=False)
    agent = context.Process(
        target=rank_program.launch,
        args=(size, restarts, program, *arguments),
        kwargs={"answer": answer},
    )
    agent.start()
    answer.close()
    try:
        assert outcomes.poll(SECONDS), "no answer in time"
        return outcomes.recv()
    finally:
        agent.join(5)
        agent.kill()
        agent.join()
