"""Recomputed statistics of batch normalisation, against sums over the images themselves."""

import torch
from torch import nn

from quadnas.data.augmentation import NO_AUGMENTATION
from quadnas.data.base import load_data
from quadnas.training.batch_norm import BATCHES, recompute_statistics
from quadnas.training.loop import batch_stream


def test_the_statistics_are_means_over_the_batches() -> None:
    split = load_data("digits", limit=200).training
    convolution, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
    network = nn.Sequential(convolution, norm).eval()
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.fill_(7)
    norm.running_var.fill_(1e6)
    weight = convolution.weight.clone()
    recompute_statistics(network, split, batch_size=16, size=8, seed=0)

    stream = batch_stream(split, 16, size=8, seed=0, start=0, augmentation=NO_AUGMENTATION)
    maps = [convolution(next(stream).images) for _ in range(BATCHES)]
    mean = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    variance = torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0)  # unbiased, as torch keeps it
    torch.testing.assert_close(norm.running_mean, mean.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, variance.detach(), rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.1
    assert not network.training
    assert torch.equal(convolution.weight, weight)


def test_a_network_without_batch_normalisation_is_left_alone() -> None:
    split = load_data("digits", limit=200).training
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    recompute_statistics(network, split, batch_size=16, size=8, seed=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
