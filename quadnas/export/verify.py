"""An exported file against the network it came from, before the file appears."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quadnas.errors import DataError
from quadnas.network import Network
from quadnas.space.model_spec import InputSpec

TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest logit."""
IMAGES = 2

Images = NDArray[np.float32]


def require_equal(
    network: Network, size: InputSpec, run: Callable[[Images], NDArray[Any]], path: Path
) -> None:
    """Raise DataError unless ``run`` gives the logits of ``network`` on random images (1, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(IMAGES):
        images = torch.randn(1, size.channels, size.size, size.size, generator=generator)
        with torch.no_grad():
            expected = network.eval()(images).numpy()
        found = np.asarray(run(images.numpy()))
        error = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
        if not error <= TOLERANCE * float(np.abs(expected).max()):
            raise DataError(
                f"the network in {path} differs from the one exported by {error:.2g} of logits up to "
                f"{np.abs(expected).max():.2g}, more than {TOLERANCE:g} of them; nothing was written"
            )
