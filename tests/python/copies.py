"""Ways in which modules and patterns are copied and stored."""

import io
import pickle

import torch


def pickled(thing):
    """Pickle and unpickle."""
    return pickle.loads(pickle.dumps(thing))  # noqa: S301 - made here


def through_a_file(thing, *, weights_only=False):
    """Save in PyTorch's format and load."""
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=weights_only)
