"""The contract of an inference runtime on this machine, and the registry through which it is found by name."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from quadnas.calibrate.own.measuring import Runnable
from quadnas.latency.kernels import Operator
from quadnas.registry import Registry
from quadnas.space.layer import Layer


@dataclass(frozen=True, slots=True)
class Graph:
    """What is measured: operators with their edges, and the layers they belong to if it is a whole network.

    ``family`` groups graphs of one kind.
    """

    family: str
    operators: tuple[Operator, ...]
    layers: tuple[Layer, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W) of the input, which the first operator reads."""
        first = self.operators[0].kernel
        return first.batch, first.cin, first.h, first.w


class Runtime(ABC):
    """One inference runtime on this machine's processor, in fp32, at batch 1.

    A runtime is one file in ``quadnas/calibrate/own/runtimes`` that registers a subclass. It is constructed after
    the process was pinned; the constructor raises MachineError if a package is missing.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @property
    @abstractmethod
    def description(self) -> str:
        """Name, version and settings, for the card."""

    @abstractmethod
    def load(self, graph: Graph) -> Runnable:
        """Make a graph ready with random weights; each call of the result is one inference."""


RUNTIMES: Registry[type[Runtime]] = Registry("runtime", "quadnas.calibrate.own.runtimes", "quadnas.runtimes")
