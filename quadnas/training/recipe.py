"""How weights are trained: AdamW, linear warm-up and cosine, clipping, label smoothing.

Source: the recipe of QuadraNet (arXiv 2311.17956), after ConvNeXt and HorNet, scaled to small data.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from quadnas.config import Settings

WARMUP_SHARE = 0.1
"""Of all steps; the paper warms up for 20 of 300 epochs."""


class Recipe(Settings):
    """``rate`` is the peak learning rate; ``clip_norm`` bounds the norm of the whole gradient.

    ``augment``: random crops (and mirroring where it keeps the class); a short training learns more without.
    """

    batch_size: Annotated[int, Field(ge=2)] = 64
    rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    clip_norm: Annotated[float, Field(gt=0)] = 5.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    augment: bool = True

    def optimizer(self, module: nn.Module) -> torch.optim.AdamW:
        """AdamW over the module's parameters; biases and vectors are not decayed."""
        decayed: list[nn.Parameter] = []
        kept: list[nn.Parameter] = []
        for name, parameter in module.named_parameters():
            (kept if parameter.ndim < 2 or name.endswith("bias") else decayed).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW([g for g in groups if g["params"]], lr=self.rate, fused=True)

    def learning_rate(self, step: int, steps: int) -> float:
        """Linear from 0 to the peak over the first tenth of the steps, then a half cosine to 0."""
        warmup = max(1, round(WARMUP_SHARE * steps))
        if step < warmup:
            return self.rate * (step + 1) / warmup
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
