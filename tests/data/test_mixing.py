"""Random erasing, mixup and cutmix: every pixel's origin, the labels, and the published distributions."""

from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, kstest, norm

from quadnas.data.augmentation import Augmentation
from quadnas.data.base import Batch
from quadnas.data.draws import Draws
from quadnas.data.mixing import cutmix_patch, erase, erasing_patch, mix

CLASSES = 5
seeds = st.integers(0, 2**63 - 1)


def draws(seed: int, count: int, **chosen: Any) -> Draws:
    return Draws(Augmentation(**chosen), seed, count, range(count))


def numbered(count: int, side: int) -> Batch:
    """Image i has the value i everywhere; its class is i modulo 5."""
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(count, 3, side, side)
    return Batch(images.contiguous(memory_format=torch.channels_last), torch.arange(count) % CLASSES)


def neighbours(count: int) -> list[tuple[int, int]]:
    return [(i, min(count - 1, i + 1 if i % 2 == 0 else i - 1)) for i in range(count)]


def one_hot(label: int) -> list[float]:
    return [float(label == i) for i in range(CLASSES)]


@settings(deadline=None)  # torch's first one-hot encoding takes a second
@given(seeds, st.integers(1, 9), st.floats(0.1, 3))
def test_mixup_adds_the_neighbour_in_one_share_for_the_batch_and_labels_alike(
    seed: int, count: int, alpha: float
) -> None:
    whole = numbered(count, 4)
    images, labels = mix(whole, CLASSES, draws(seed, count, mixup_alpha=alpha))
    shares = set()
    for i, other in neighbours(count):
        assert (images[i] == images[i, 0, 0, 0]).all()
        if other == i:
            assert images[i, 0, 0, 0].item() == pytest.approx(i)
            assert labels[i].tolist() == pytest.approx(one_hot(i % CLASSES))
            continue
        share = (images[i, 0, 0, 0].item() - other) / (i - other)
        shares.add(round(share, 5))
        expected = share * np.array(one_hot(i % CLASSES)) + (1 - share) * np.array(one_hot(other % CLASSES))
        assert labels[i].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert len(shares) <= 1 or max(shares) - min(shares) < 3e-5
    torch.testing.assert_close(labels.sum(1), torch.ones(count))


@given(seeds, st.integers(1, 9), st.integers(1, 40))
def test_cutmix_takes_one_rectangle_from_the_neighbour_whose_area_is_its_share_exactly(
    seed: int, count: int, side: int
) -> None:
    images, labels = mix(numbered(count, side), CLASSES, draws(seed, count, cutmix_alpha=1.0))
    assert images.is_contiguous(memory_format=torch.channels_last)
    masks = []
    for i, other in neighbours(count):
        taken = images[i] == other
        assert ((images[i] == i) | taken).all()
        assert (taken == taken[0]).all(), "all channels move together"
        if other == i:
            assert labels[i].tolist() == one_hot(i % CLASSES)
            continue
        masks.append(taken[0])
        kept = 1 - taken[0].sum().item() / side**2
        assert labels[i, i % CLASSES].item() == np.float32(kept)
        assert labels[i, other % CLASSES].item() == np.float32(1 - kept)
        rows, columns = taken[0].any(1), taken[0].any(0)
        assert torch.equal(taken[0], rows[:, None] & columns[None, :])
        assert rows.int().diff().abs().sum() <= 2, "one rectangle"
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    torch.testing.assert_close(labels.sum(1), torch.ones(count))


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 4.0])
def test_the_share_of_mixup_follows_the_beta_distribution(alpha: float) -> None:
    batch = numbered(2, 1)
    shares = [
        mix(batch, CLASSES, draws(seed, 2, mixup_alpha=alpha)).labels[0, 0].item() for seed in range(1500)
    ]
    assert kstest(shares, beta(alpha, alpha).cdf).pvalue > 1e-4


def test_the_rectangle_of_cutmix_has_its_area_unless_the_edge_cuts_it() -> None:
    """A square of side r around a uniform centre keeps r - r^2 / 4 of each axis on average."""
    side, random = 1000, Random(5)
    for share in (0.9, 0.5, 0.1):
        length = int(side * np.sqrt(1 - share))
        patches = [cutmix_patch(side, share, random) for _ in range(4000)]
        for top, bottom, left, right in patches:
            assert 0 <= top <= bottom <= side
            assert 0 <= left <= right <= side
            assert bottom - top <= length
            assert bottom - top == length or top == 0 or bottom == side
            assert right - left == length or left == 0 or right == side
        mean = np.mean([patch.area for patch in patches]) / side**2
        r = length / side
        assert mean == pytest.approx((r - r**2 / 4) ** 2, rel=0.03)


def test_how_often_a_batch_is_mixed_and_by_cutmix() -> None:
    """Of mixed images some keep whole values (cutmix); 3/5 of the batches, a quarter of them by cutmix."""
    both = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "mix_probability": 0.6, "switch_probability": 0.25}
    count, mixed, cut = 2000, 0, 0
    for seed in range(count):
        images, labels = mix(numbered(2, 16), CLASSES, draws(seed, 2, **both))
        whole = bool((images == images.round()).all())
        mixed += not whole or bool((images[0] != 0).any())
        cut += whole and bool((images[0] != 0).any())
        assert labels.dtype == torch.float32
    # a patch of cutmix is empty where its share is above 1 - 1/256 or it lies beyond the edge: some 1 %
    for seen, expected in ((mixed, 0.6), (cut, 0.6 * 0.25)):
        assert abs(seen / count - expected) < 0.01 + 5 * np.sqrt(expected * (1 - expected) / count)


def test_one_alpha_alone_needs_no_switch_and_none_leaves_the_batch() -> None:
    batch = numbered(4, 8)
    assert mix(batch, CLASSES, draws(1, 4)) is batch
    cut = mix(numbered(4, 8), CLASSES, draws(1, 4, cutmix_alpha=1.0, switch_probability=0.0)).images
    added = mix(numbered(4, 8), CLASSES, draws(1, 4, mixup_alpha=1.0, switch_probability=1.0)).images
    assert torch.equal(cut, cut.round())
    assert not torch.equal(added, added.round())


def test_the_largest_share_names_the_class() -> None:
    shares = torch.tensor([[0.2, 0.8], [0.7, 0.3]])
    assert Batch(torch.zeros(2, 3, 1, 1), shares).classes.tolist() == [1, 0]
    assert Batch(torch.zeros(2, 3, 1, 1), torch.tensor([1, 0])).classes.tolist() == [1, 0]


@given(st.integers(8, 500), seeds)
def test_an_erased_rectangle_keeps_to_area_and_aspect_up_to_the_rounding_of_its_sides(
    side: int, seed: int
) -> None:
    patch = erasing_patch(side, Random(seed))
    if patch is None:  # ten misfits in a row; a single one has a probability below 4 %
        return
    top, bottom, left, right = patch
    assert 0 <= top < bottom <= side
    assert 0 <= left < right <= side
    height, width = bottom - top, right - left
    assert (height + 0.5) * (width + 0.5) >= 0.02 * side**2
    assert (height - 0.5) * (width - 0.5) <= side**2 / 3
    assert (height - 0.5) / (width + 0.5) <= 1 / 0.3
    assert (height + 0.5) / (width - 0.5) >= 0.3


def test_erased_areas_aspects_and_places_have_the_published_distributions() -> None:
    """Up to 30 % of the area every aspect fits, so there the draws are as they were made."""
    side, random = 2000, Random(9)
    patches = [p for _ in range(3000) if (p := erasing_patch(side, random)) and p.area < 0.299 * side**2]
    areas = np.array([patch.area for patch in patches]) / side**2
    height = np.array([patch.bottom - patch.top for patch in patches])
    width = np.array([patch.right - patch.left for patch in patches])
    laws = {
        "area": (areas - 0.02) / 0.279,
        "aspect": (np.log(height / width) / np.log(1 / 0.3) + 1) / 2,
        "top": np.array([patch.top for patch in patches]) / (side - height),
        "left": np.array([patch.left for patch in patches]) / (side - width),
    }
    assert len(patches) > 2500
    for name, values in laws.items():
        assert kstest(values, "uniform").pvalue > 1e-4, name


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_erasing_writes_standard_normal_noise_into_a_rectangle_of_some_images(probability: float) -> None:
    count, side = 600, 32
    images = torch.full((count, 3, side, side), 77.0)
    erase(images, draws(4, count, random_erasing=probability))
    changed = (images != 77).any(1)
    erased = changed.any(2).any(1)
    spread = 5 * np.sqrt(probability * (1 - probability) / count)
    assert erased.float().mean().item() == pytest.approx(probability, abs=spread)
    if not probability:
        return
    for image, mask in zip(images[erased], changed[erased], strict=True):
        assert torch.equal(mask, mask.any(1)[:, None] & mask.any(0)[None, :])
        assert (image[:, ~mask] == 77).all()
        values = image[:, mask]
        assert values.unique().numel() > 0.98 * values.numel(), "every pixel and channel has its own"
    noise = images.permute(0, 2, 3, 1)[changed].flatten()
    assert kstest(noise[::17].numpy(), norm.cdf).pvalue > 1e-4
