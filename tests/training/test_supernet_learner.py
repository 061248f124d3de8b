"""A weight step of a supernet: pieces of a batch, several losses per step, batches of an architecture step."""

from collections.abc import Iterator

import pytest
import torch

from quadnas.data.augmentation import Augmentation
from quadnas.data.base import Batch
from quadnas.search.strategy import Moment, OneShot, new_strategy
from quadnas.training.loop import Criterion, Learner, Loss, train
from quadnas.training.recipe import Recipe
from tests.toy import toy_problem


def batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(torch.randn(12, 3, 32, 32, generator=generator), torch.arange(12) % 10)


def trained(strategy_name: str, pieces: int) -> dict[str, torch.Tensor]:
    strategy = new_strategy(toy_problem(strategy=strategy_name, seed=3))
    assert isinstance(strategy, OneShot)

    def losses(piece: Batch, criterion: Criterion, step: int) -> Iterator[Loss]:
        return strategy.losses(piece, criterion, Moment(step, seed=3))

    learner = Learner(strategy.supernet, Recipe(gradient_accumulation=pieces), 3, losses=losses)
    train(learner, map(batch, range(3)), (0, 3, 3), lambda _: None)
    return strategy.supernet.state_dict()


@pytest.mark.parametrize("strategy", ["swap", "proxyless", "evolution"])
def test_pieces_of_a_batch_make_the_step_of_the_whole(strategy: str) -> None:
    """Five pieces of 12 images are not equal; each takes the same path."""
    whole, divided = trained(strategy, 1), trained(strategy, 5)
    for name in whole:
        torch.testing.assert_close(whole[name], divided[name], rtol=0, atol=1e-5, msg=name)


def test_images_of_an_architecture_step_keep_their_labels() -> None:
    recipe = Augmentation(
        crops="none", color_jitter=0.3, mixup_alpha=0.8, cutmix_alpha=1.0, random_erasing=0.25
    )
    plain = recipe.without_mixing()
    assert not plain.mixes
    assert plain == Augmentation(crops="none", color_jitter=0.3)
