"""A process that has torch loaded and forks the processes of a training, as torchrun would start them.

It reads one job after the other from stdin as lines of JSON and answers each by one line: the list of the exit
statuses (negative: the signal). A job has ``argv`` of quadnas, ``world``, ``log`` (a path, to which the rank is
appended), and perhaps ``signal``: [rank, signal number, journal, steps]: sent when the journal has so many steps;
and ``watch``: a path like ``log``, for the number of images in every step and every evaluated batch.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from quadnas import cli
from quadnas.blocks.base import BLOCKS
from quadnas.data import batches as data_batches
from quadnas.data.base import Batch, load_data
from quadnas.report import observers, page, progress  # noqa: F401 (imported by the command line when it runs)
from quadnas.search.strategy import STRATEGIES
from quadnas.training import evaluation, loop, standalone  # noqa: F401

SECONDS, GRACE_SECONDS = 60, 5


def watched(log: str) -> None:
    """Write down how many images every step and every evaluated batch has in this process."""
    take, evaluate = loop.pieces, data_batches.evaluation_batches

    def write(what: str, count: int) -> None:
        with Path(log).open("a") as file:
            file.write(f"{what} {count}\n")

    def pieces(batch: Batch, count: int) -> Iterator[Batch]:
        write("step", len(batch.images))
        return take(batch, count)

    def batches(*args: Any, **options: Any) -> Iterator[Batch]:
        for batch in evaluate(*args, **options):
            write("evaluated", len(batch.images))
            yield batch

    loop.pieces = pieces
    evaluation.__dict__["evaluation_batches"] = batches


def start(job: dict[str, Any], rank: int, port: int) -> int:
    """The process id of one rank."""
    if pid := os.fork():
        return pid
    log = os.open(f"{job['log']}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if "watch" in job:
        watched(f"{job['watch']}.{rank}")
    if job["world"] > 1:
        said = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job["world"], "TORCHELASTIC_RUN_ID": "test"}
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in (said | where).items()})
    sys.argv = ["quadnas", *job["argv"]]
    status = 0
    try:
        cli.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        print(repr(error))
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def send(pids: list[int], rank: int, number: int, journal: str, steps: int) -> None:
    """Wait for the steps, then send the signal."""
    deadline = time.monotonic() + SECONDS
    while not (Path(journal).exists() and Path(journal).read_text().count('"WeightStep"') >= steps):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(pids[rank], number)


def ended(pids: list[int]) -> list[int]:
    """Exit statuses; as under torchrun, the others are asked to end a while after one has failed."""
    statuses: dict[int, int] = {}
    deadline = time.monotonic() + SECONDS
    while len(statuses) < len(pids):
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            statuses[pid] = os.waitstatus_to_exitcode(status)
            if statuses[pid]:
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        elif time.monotonic() > deadline:
            for left in set(pids) - set(statuses):
                os.kill(left, signal.SIGTERM)
            deadline = time.monotonic() + SECONDS
        else:
            time.sleep(0.01)
    return [statuses[pid] for pid in pids]


def warm_up() -> None:
    """What is imported only when it is used first, once for all children."""
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], fused=True)
    weight.sum().backward()
    optimizer.step()
    list(BLOCKS)
    list(STRATEGIES)
    load_data("digits")


def main() -> None:
    """Serve until stdin ends."""
    torch.set_num_threads(1)
    warm_up()
    for line in sys.stdin:
        job = json.loads(line)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pids = [start(job, rank, port) for rank in range(job["world"])]
        if "signal" in job:
            send(pids, *job["signal"])
        print(json.dumps(ended(pids)), flush=True)


if __name__ == "__main__":
    main()
