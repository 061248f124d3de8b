"""Which of the processes that torchrun started this one is; known without importing torch."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Launch:
    """``rank`` among ``world`` processes, ``local_rank`` among those on this machine, all from 0."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0


def launched() -> Launch:
    """What torchrun says of this process in its environment; alone if torchrun did not start it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Launch()
    return Launch(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
