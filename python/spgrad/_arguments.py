"""The one check that Python makes: PyTorch's own error would write out the array."""

from torch import Tensor


def refuse_others_than_tensors(**arguments: object) -> None:
    """Refuse arguments that are no tensors, by their names.

    Raises:
        ValueError: An argument is no tensor.

    """
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            message = f"{name} must be a torch.Tensor, but received {type(value).__name__}"
            raise ValueError(message)  # noqa: TRY004 - the documented type, which callers catch
