"""What Ray tells a driver of lost nodes and dead workers, in a line each: they are replaced, and no stack trace helps.

Ray prints on the driver's standard output whatever its nodes report: for one lost node it is the loss, each task that
is done again therefore, and, when a node comes back that was given up, the last lines of its log.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import ray._private.worker as ray_worker  # there is no public way to these messages

logger = logging.getLogger(__name__)

LOST = re.compile(
    r"The node with node id: \w+ and address: (?P<address>\S+) and node name: (?P<name>\S+) has been marked dead"
)
DIED = re.compile(
    r"^A worker died or was killed .*?Worker IP address: (?P<address>\S+) .*?exit detail: (?P<why>.*)", re.S
)
RAISED = re.compile(r"^[\w.]+(?:Error|Exception)\b.*", re.M)
FOLLOWS = re.compile(
    r"^Raylet is terminated\.|^Task .* failed\. There are .* retries remaining"
    r"|^Traceback .*internal error occurred while the worker was executing"
    r"|^There are tasks with infeasible resource requests",
    re.S,
)
"""What only follows from these two, or is what ``waiting`` tells: no node is there yet."""
Print = Callable[..., None]


def in_a_line() -> None:
    """From now on, lost nodes and dead workers are told by this module; other messages are printed as ever."""
    original: Print | None = getattr(ray_worker, "print_to_stdstream", None)
    if original is not None and not hasattr(original, "told"):
        ray_worker.print_to_stdstream = _Teller(original)


class _Teller:
    """In place of Ray's function that prints messages."""

    def __init__(self, original: Print) -> None:
        self.original = original
        self.told: set[str] = set()
        """The losses that were told already: they may come more than once."""

    def __call__(self, data: dict[str, Any], *args: Any, **options: Any) -> None:
        if data.get("pid") != "raylet":
            self.original(data, *args, **options)
            return
        left = [message for message in data.get("lines", ()) if not self._is_told(message)]
        if left:
            self.original(data | {"lines": left}, *args, **options)

    def _is_told(self, message: str) -> bool:
        if lost := LOST.search(message):
            if lost[0] not in self.told:
                self.told.add(lost[0])
                logger.warning(
                    "%s is lost: gone, cut off or overloaded. What it was at is done by the other nodes.", _named(lost)
                )
            return True
        if died := DIED.search(message):
            raised = RAISED.findall(died["why"])
            why = raised[-1] if raised else "killed, out of memory, or a crash in native code"
            logger.warning("a worker on %s died (%s). What it was at is tried again.", died["address"], why)
            return True
        return FOLLOWS.search(message) is not None


def _named(lost: re.Match[str]) -> str:
    """A node by its name and address, or by its address where that is its name."""
    name, address = lost["name"], lost["address"]
    return f"node {address}" if name == address else f"{name} ({address})"
