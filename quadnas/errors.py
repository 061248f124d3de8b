"""The one exception tree: every error a user can cause carries the exit code of its kind.

A message names the rule, the value that broke it, what is allowed, and the next step.
"""


class QuadnasError(Exception):
    """Base of all errors that the command line reports without a traceback."""

    exit_code = 1


class ConfigError(QuadnasError):
    """A command, a setting or a user-written file is wrong (exit 2)."""

    exit_code = 2


class LimitError(QuadnasError):
    """No architecture of the space meets the limit (exit 3)."""

    exit_code = 3


class DataError(QuadnasError):
    """A file is corrupt, incomplete or cannot be trusted (exit 4)."""

    exit_code = 4


class CoverageError(QuadnasError):
    """The latency model has no price for an operator, so no total can be given (exit 4)."""

    exit_code = 4


class MachineError(QuadnasError):
    """The machine cannot do it: disk, lock, device, missing optional package (exit 5)."""

    exit_code = 5


class Interrupted(QuadnasError):  # noqa: N818
    """The run was asked to stop and has committed its state; it resumes from there (exit 130 or 143)."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
