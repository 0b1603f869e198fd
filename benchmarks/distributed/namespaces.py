"""Network namespaces of this machine, joined by links of limited speed: machines for ranks."""

import contextlib
import os
import subprocess
from collections.abc import Iterator

DEVICE = "spgrad"
_SWITCH = "switch"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)  # noqa: S603, S607


def address(rank: int) -> str:
    """Give the address of a rank."""
    return f"10.77.0.{rank + 1}"


def within(namespace: str) -> list[str]:
    """Begin a command that runs in a namespace."""
    return ["ip", "netns", "exec", namespace]


@contextlib.contextmanager
def namespaces(count: int, rate: str) -> Iterator[list[str]]:
    """Make as many, each with one link to the same switch.

    Args:
        count: How many.
        rate: What each can send, as `tc` has it: `1gbit`.

    Yields:
        Their names.

    Raises:
        SystemExit: This is not Linux with `ip` and `tc`, or not run by root.

    """
    if os.geteuid() != 0:
        message = "network namespaces need root"
        raise SystemExit(message)
    prefix = f"spgrad{os.getpid()}-"
    names = [f"{prefix}{rank}" for rank in range(count)]
    switch = prefix + _SWITCH
    made = []
    try:
        for name in (switch, *names):
            _ip("netns", "add", name)
            made.append(name)
        _ip("-n", switch, "link", "add", _SWITCH, "type", "bridge")
        _ip("-n", switch, "link", "set", _SWITCH, "up")
        for rank, name in enumerate(names):
            port = f"port{rank}"
            ends = ("type", "veth", "peer", "name", port, "netns", switch)
            _ip("link", "add", DEVICE, "netns", name, *ends)
            _ip("-n", switch, "link", "set", port, "master", _SWITCH, "up")
            _ip("-n", name, "addr", "add", f"{address(rank)}/24", "dev", DEVICE)
            for device in ("lo", DEVICE):
                _ip("-n", name, "link", "set", device, "up")
            # Links that were idle begin as fast as they went on.
            setting = "net.ipv4.tcp_slow_start_after_idle=0"
            subprocess.run([*within(name), "sysctl", "-qw", setting], check=True)  # noqa: S603
            shape = ("tbf", "rate", rate, "burst", "256kb", "latency", "50ms")
            command = [*within(name), "tc", "qdisc", "add", "dev", DEVICE, "root", *shape]
            subprocess.run(command, check=True, capture_output=True)  # noqa: S603
        yield names
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        reason = getattr(error, "stderr", None) or str(error).encode()
        message = f"network namespaces are not to be had here: {reason.decode().strip()}"
        raise SystemExit(message) from error
    finally:
        for name in made:
            _ip("netns", "del", name)
