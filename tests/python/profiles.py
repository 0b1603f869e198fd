"""What PyTorch's profiler sees of memory."""

from torch.profiler import ProfilerActivity, profile


def allocated(function):
    """Call a function, and list the bytes of its allocations (above 0) and releases (below)."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        function()
    events = seen.profiler.kineto_results.events()
    return [event.nbytes() for event in events if event.name() == "[memory]"]
