"""Peak resident memory of this process above what it held at one moment (Linux)."""

from pathlib import Path


class PeakMemory:
    """Forgets the peak so far when it is made: see /proc/self/clear_refs in proc(5)."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._before_kilobytes = _kilobytes("VmRSS")

    @property
    def megabytes(self) -> float:
        """The highest resident memory since, less what was resident then, in units of 2**20 bytes."""
        return (_kilobytes("VmHWM") - self._before_kilobytes) / 1024


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))
