"""Whether `torch.compile` makes training faster, measured in the run itself.

Not a command; `python train.py` uses it on CUDA.
"""

import time
from typing import Any

import torch
from torch import nn

from distributed import ProcessGroup

# A run that ends sooner is not compiled. On two cores, compiling takes 20 s for the published network and 4 minutes for
# the recommended one.
WORTH_S = 1800
SPANS = 3  # spans of steps that are timed; the fastest counts, so that the end of an epoch does not


class CompileTrial:
    """Times steps of a network as it is, then compiled, and keeps what is faster.

    `network` is the one to train with. It changes in `measure`, in all processes at once.
    """

    def __init__(self, network: nn.Module, group: ProcessGroup, enabled: bool):
        self.network = self.plain = network
        self.group = group
        self.plain_s = 0.0  # per step; 0 as long as it is measured
        self.decided = not enabled
        self.seconds: list[float] = []  # per step, of the spans so far
        self.last: tuple[int, float] | None = None  # step and time at which a span begins

    def measure(self, step: int, steps_left: int) -> str | None:
        """To be called every few steps, when the device has finished them; a sentence once it is decided."""
        if self.decided:
            return None
        now = time.perf_counter()
        if self.last is not None:
            self.seconds.append((now - self.last[1]) / (step - self.last[0]))
        self.last = step, now
        if len(self.seconds) < SPANS:
            return None
        slowest = self.group.all_reduce_max(round(1e9 * min(self.seconds))) / 1e9  # of all processes
        if not self.plain_s:
            if slowest * steps_left < WORTH_S:
                self.decided = True
                return None
            torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
            compiled: Any = torch.compile(self.network)
            self.network, self.plain_s, self.seconds, self.last = compiled, slowest, [], None
            return None
        self.decided = True
        share = slowest / self.plain_s
        if share < 1:
            return f"torch.compile is used: a step takes {share:.2f} of the time"
        self.network = self.plain
        return f"torch.compile is not used: a step would take {share:.2f} times as long"
