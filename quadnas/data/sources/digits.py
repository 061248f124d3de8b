"""scikit-learn's handwritten digits: embedded, so that the main job runs anywhere at once."""

from pathlib import Path

from quadnas.data.base import SOURCES, Pools
from quadnas.data.normalization import Normalization
from quadnas.errors import ConfigError

TEST_SHARE = 0.2


class Digits:
    """1,797 grey images of 8 x 8 pixels in 17 levels, of which a fixed stratified fifth is the test split."""

    def check(self, argument: str | None) -> None:
        """Raises ConfigError if there is an argument."""
        if argument is not None:
            raise ConfigError(f"digits are embedded and take no path, not {argument!r}; give --data digits")

    def load(self, argument: str | None, cache: Path) -> Pools:
        """See ``Source.load``; a level of 16 becomes 255."""
        import torch  # noqa: PLC0415
        from sklearn.datasets import load_digits  # noqa: PLC0415

        from quadnas.data.memory import MemorySplit  # noqa: PLC0415
        from quadnas.data.order import stratified_order  # noqa: PLC0415

        bunch = load_digits()
        whole = MemorySplit(
            labels=torch.from_numpy(bunch.target).long(),
            class_count=10,
            normalization=Normalization((0.305,) * 3, (0.376,) * 3),
            images=torch.from_numpy(bunch.images / 16 * 255).round().to(torch.uint8).unsqueeze(1),
            flip=False,
        )
        order = stratified_order(whole.labels, (f"digits/{i}" for i in range(len(whole))))
        test = round(len(order) * TEST_SHARE)
        return Pools(
            classes=tuple("0123456789"),
            train=whole.subset(order[test:]),
            test=whole.subset(order[:test]),
            default_train_size=32,
            demonstration=True,
            note="1,797 handwritten digits of 8x8 pixels (scikit-learn): a demonstration, no benchmark",
        )


SOURCES.register("digits")(Digits())
