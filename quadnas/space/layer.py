"""One layer of a network as plain data: which block, between which channels, with which arguments."""

from typing import Annotated, Any

from pydantic import Field

from quadnas.config import Settings

Positive = Annotated[int, Field(ge=1)]


class Layer(Settings):
    """A block family by name with everything needed to build it; ``arguments`` are the family's own."""

    block: str
    channels_in: Positive
    channels_out: Positive
    stride: Positive = 1
    arguments: dict[str, Any] = Field(default_factory=dict)
