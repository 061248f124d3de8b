"""An architecture: one candidate for every searchable slot of a space."""

from dataclasses import dataclass

from quadnas.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Architecture:
    """One candidate label per slot, grouped by stage; immutable, hashable, ordered as the space's slots."""

    stages: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        """The canonical text: labels joined by commas, stages by bars."""
        return "|".join(",".join(stage) for stage in self.stages)

    @classmethod
    def parse(cls, text: str) -> "Architecture":
        """Read the canonical text; raises ConfigError for an empty stage or label."""
        stages = tuple(tuple(stage.split(",")) for stage in text.split("|"))
        if not all(label for stage in stages for label in stage):
            raise ConfigError(
                f"not an architecture: {text!r}; expected labels joined by ',' and stages by '|', "
                "for example quadra-k7-e4,identity|quadra-k3-e2"
            )
        return cls(stages)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of all slots in order."""
        return tuple(label for stage in self.stages for label in stage)
