"""What is done to training images: the settings that a recipe holds. No torch here."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from quadnas.config import Settings

Probability = Annotated[float, Field(ge=0, le=1)]


class RandAugment(Settings):
    """RandAugment (Cubuk et al., 2020) with severities that increase: timm's ``rand-m9-mstd0.5-inc1``.

    Each image gets ``operations`` of the fifteen, drawn with replacement, and each of them is left out with
    probability 1/2, as timm has it. ``magnitude`` goes from 0 to 10; every operation draws its own, normal
    with deviation ``magnitude_std``.
    """

    operations: Annotated[int, Field(ge=1, le=10)] = 2
    magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0
    magnitude_std: Annotated[float, Field(ge=0)] = 0.5


class Augmentation(Settings):
    """What is done to training images; without settings random crops and mirroring, ``none`` for nothing.

    ``crops``: ``shift`` moves by up to an eighth of the side over black; ``resized`` takes a part of the area
    in ``scale`` with an aspect in ``ratio`` (Szegedy et al., 2015) to the full size; ``auto`` is ``resized``
    for image files and ``shift`` for images in memory. ``flip`` mirrors half of the images of data whose
    class mirroring keeps. ``color_jitter``: brightness, contrast and saturation change by factors from 1 - j
    to 1 + j. ``random_erasing`` is the probability of a rectangle of noise (Zhong et al., 2020).

    ``mixup_alpha`` (Zhang et al., 2018) and ``cutmix_alpha`` (Yun et al., 2019) shape the Beta distribution of
    the share, 0 for off; a batch is mixed with ``mix_probability``, and where both are on, by cutmix with
    ``switch_probability``. The labels of a mixed batch are the shares of its classes.

    The published ImageNet recipes name a colour jitter of 0.4 beside RandAugment, which timm then leaves out;
    here the two exclude each other. Raises ValueError for that and for an empty range.
    """

    crops: Literal["auto", "shift", "resized", "none"] = "auto"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    rand_augment: RandAugment | None = None
    color_jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    random_erasing: Probability = 0.0
    mixup_alpha: Annotated[float, Field(ge=0)] = 0.0
    cutmix_alpha: Annotated[float, Field(ge=0)] = 0.0
    mix_probability: Probability = 1.0
    switch_probability: Probability = 0.5

    @model_validator(mode="before")
    @classmethod
    def _none(cls, data: Any) -> Any:
        if data == "none":
            return {"crops": "none", "flip": False}
        if not isinstance(data, dict | Augmentation):
            raise ValueError("must be settings such as {flip: false}, or the word none")
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rand_augment and self.color_jitter:
            raise ValueError(
                "rand_augment and color_jitter exclude each other (timm leaves the jitter out); give one of them"
            )
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(
                f"scale must be two shares of the area, 0 < least <= most <= 1, not {self.scale}"
            )
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be two aspects, 0 < least <= most, not {self.ratio}")
        return self

    @property
    def mixes(self) -> bool:
        """Whether batches have shares of classes as labels."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    def without_mixing(self) -> Self:
        """The same on images that keep their own labels and all of their pixels."""
        return self.model_copy(update={"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "random_erasing": 0.0})

    @property
    def distorts(self) -> bool:
        """Whether the bytes of single images change beyond crops and mirroring."""
        return self.rand_augment is not None or self.color_jitter > 0


BASIC = Augmentation()
"""Random crops and mirroring."""

NO_AUGMENTATION = Augmentation(crops="none", flip=False)
"""Training images as in evaluation."""
