"""How weights are trained: AdamW or SGD, rates, clipping, smoothing, augmentation, drop-path, average.

Source: the recipe of QuadraNet (arXiv 2311.17956), after ConvNeXt and HorNet; the defaults suit small data, and
``experiments/imagenet_retrain.yaml`` is the published one.
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from quadnas.config import Settings
from quadnas.data.augmentation import Augmentation
from quadnas.network import Network

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class Recipe(Settings):
    """Every setting of a training but its length and its data.

    ``batch_size``: images per update, over all processes; every process takes its share of them in
    ``gradient_accumulation`` pieces, one after the other, so that only a piece must fit into memory.

    ``algorithm``: AdamW, or SGD with Nesterov momentum, which is the first of ``betas``.

    ``rate``: the peak learning rate for batches of ``rate_batch`` images, scaled linearly to ``batch_size``, or
    without ``rate_batch`` as it is. It rises over ``warmup_share`` of all steps and falls as a half cosine to
    ``final_rate``.

    ``clip_norm`` bounds the norm of the whole gradient. ``precision``: of the forward pass and the gradients of
    activations; weights, their averages and evaluation are fp32 throughout, and fp16 scales its loss.

    A supernet trains without the last three, which are for one network: ``drop_path``, the rate of the last block
    (they rise linearly from 0), ``ema_decay``, of the exponential moving average of the weights that is then
    evaluated and exported in their place (for 1 / (1 - decay) steps it still remembers the beginning), and
    ``gradient_checkpointing``, which computes blocks a second time instead of keeping their activations.
    """

    batch_size: Annotated[int, Field(ge=2)] = 64
    gradient_accumulation: Annotated[int, Field(ge=1)] = 1
    algorithm: Literal["adamw", "sgd"] = "adamw"
    rate: Positive = 2e-3
    rate_batch: Annotated[int, Field(ge=1)] | None = None
    warmup_share: Share = 0.1
    final_rate: Annotated[float, Field(ge=0)] = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Positive = 1e-8
    clip_norm: Positive = 5.0
    label_smoothing: Share = 0.1
    augmentation: Augmentation = Augmentation()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    drop_path: Share = 0.0
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    gradient_checkpointing: bool = False

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """The algorithm over the module's parameters; biases and vectors are not decayed."""
        decayed: list[nn.Parameter] = []
        kept: list[nn.Parameter] = []
        for name, parameter in module.named_parameters():
            (kept if parameter.ndim < 2 or name.endswith("bias") else decayed).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        momentum, _ = self.betas
        if self.algorithm == "sgd":
            # the fused one refuses weights whose first gradient comes later than those of others, as in a supernet
            return torch.optim.SGD(groups, lr=self.peak_rate, momentum=momentum, nesterov=momentum > 0)
        return torch.optim.AdamW(groups, lr=self.peak_rate, betas=self.betas, eps=self.eps, fused=True)

    def prepare(self, network: Network) -> None:
        """Set what concerns the layers of a network that is trained alone."""
        network.set_drop_path(self.drop_path)
        network.checkpointing = self.gradient_checkpointing

    @property
    def peak_rate(self) -> float:
        """The highest learning rate, for a batch of ``batch_size``."""
        return self.rate * self.batch_size / (self.rate_batch or self.batch_size)

    def learning_rate(self, step: int, steps: int) -> float:
        """The rate of a step, counted from 0, of so many."""
        warmup = max(1, round(self.warmup_share * steps))
        if step < warmup:
            return self.peak_rate * (step + 1) / warmup
        fallen = 0.5 * (1 - math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
        return self.peak_rate + fallen * (self.final_rate - self.peak_rate)
