"""The space of ProxylessNAS: laid out as published, sizes by closed forms, the published networks in it."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from quadnas.blocks.base import connects
from quadnas.config import parse_yaml, read_text, validated
from quadnas.data.base import Batch
from quadnas.errors import ConfigError
from quadnas.network import Network, load_space, with_all_arguments
from quadnas.report.models import list_models
from quadnas.resources import locate
from quadnas.search.constraint import derive
from quadnas.search.problem import Problem
from quadnas.search.strategy import STRATEGIES, Strategy
from quadnas.space.layer import Layer
from quadnas.space.model_family import find_model
from quadnas.space.model_spec import IMAGENET_INPUT, ModelSpec, counted_classes
from quadnas.space.net_config import parse_net_config, write_net_config
from quadnas.space.search_space import SearchSpace, SpaceFile, space_from
from quadnas.testing.strategies import check_strategy
from tests.toy import toy_problem
from tests.unit.test_net_config import MEASURED, PUBLISHED

WIDTHS, DEPTHS, STRIDES = (24, 40, 80, 96, 192, 320), (4, 4, 4, 4, 4, 1), (2, 2, 2, 1, 2, 1)
REDUCING = [sum(DEPTHS[:stage]) for stage in range(6)]
"""The slots that change width or map."""


def mbconv_parameters(cin: int, cout: int, kernel: int, expansion: int) -> int:
    """Convolutions without bias; scale and shift of the three norms, two without an expansion."""
    wide = expansion * cin
    expand = cin * wide + 2 * wide if expansion > 1 else 0
    return expand + wide * kernel**2 + 2 * wide + wide * cout + 2 * cout


def parameters(blocks: Sequence[tuple[int, int] | None]) -> int:
    """Of the whole network for 1000 classes, from the (kernel, expansion) of every slot; None is skipped."""
    total = 27 * 32 + 2 * 32 + mbconv_parameters(32, 16, 3, 1)
    width = 16
    for slot, block in enumerate(blocks):
        stage = max(stage for stage in range(6) if REDUCING[stage] <= slot)
        if block:
            total += mbconv_parameters(width, WIDTHS[stage], *block)
        width = WIDTHS[stage]
    return total + 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000


def test_it_is_laid_out_as_published() -> None:
    space = load_space("proxyless")
    assert len(space.slots) == 21
    assert space.size == 6**6 * 7**15
    blocks = [f"mbconv-k{kernel}-e{ratio}" for kernel in (3, 5, 7) for ratio in (3, 6)]
    for number, slot in enumerate(space.slots):
        reducing = number in REDUCING
        assert list(slot.labels) == blocks + ([] if reducing else ["identity"])
        stage = slot.stage
        ports = {(layer.channels_in, layer.channels_out, layer.stride) for layer in slot.candidates.values()}
        before = (16, *WIDTHS)[stage] if reducing else WIDTHS[stage]
        assert ports == {(before, WIDTHS[stage], STRIDES[stage] if reducing else 1)}


@pytest.mark.parametrize("block", [(7, 6), (3, 3)])
def test_largest_and_smallest_by_closed_form(block: tuple[int, int]) -> None:
    space = load_space("proxyless")
    label = "mbconv-k{}-e{}".format(*block)
    labels = [label if block == (7, 6) or number in REDUCING else "identity" for number in range(21)]
    choices = [slot.labels.index(wanted) for slot, wanted in zip(space.slots, labels, strict=True)]
    count = sum(p.numel() for p in Network(space.layers(choices, 1000)).parameters())
    assert count == parameters([None if wanted == "identity" else block for wanted in labels])


def choices_of(space: SearchSpace, layers: Sequence[Layer]) -> list[int]:
    """The choices that give these layers; ValueError if the space does not hold them."""
    found = []
    for position, layer in zip(space.positions, layers, strict=False):
        if isinstance(position, Layer):
            assert with_all_arguments(position) == layer
        else:
            found.append(list(position.candidates.values()).index(layer))
    return found


def test_an_architecture_comes_back_from_net_config() -> None:
    space = load_space("proxyless")
    mixed = [number % len(slot.labels) for number, slot in enumerate(space.slots)]
    layers = tuple(with_all_arguments(layer) for layer in space.layers(mixed, 1000))
    spec = ModelSpec(name="net", input=IMAGENET_INPUT, classes=counted_classes(1000), layers=layers)
    back = parse_net_config(write_net_config(spec), "net.config")
    assert back == spec
    assert choices_of(space, back.layers) == mixed


@pytest.mark.skipif(
    not MEASURED.is_dir(), reason="no published networks: set QUADNAS_MEASURED to their folder"
)
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks_are_in_the_space_of_their_width(name: str) -> None:
    config = json.loads((MEASURED / f"{name}.config").read_text())
    outs = [block["mobile_inverted_conv"].get("out_channels") for block in config["blocks"]]
    text = read_text(locate("search_spaces", "proxyless"))
    widths = {
        "channels: 32}": f"channels: {config['first_conv']['out_channels']}}}",
        "channels: 16}": f"channels: {outs[0]}}}",
        "channels: 1280}": f"channels: {config['feature_mix_layer']['out_channels']}}}",
    }
    for width, slot in zip(WIDTHS, REDUCING, strict=True):
        widths[f"{{channels: {width},"] = f"{{channels: @{outs[1 + slot]},"  # @: not to be replaced again
    for old, new in widths.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    text = text.replace("@", "")
    space = space_from(validated(parse_yaml(text, "s"), SpaceFile, "s"), Path("s.yaml"), connects)
    spec = find_model(MEASURED / f"{name}.config")
    layers = space.layers(choices_of(space, spec.layers), 1000)
    assert tuple(with_all_arguments(layer) for layer in layers) == spec.layers
    (row,), _ = list_models([spec.model_copy(update={"layers": layers})])
    assert row["params"] == PUBLISHED[name][0]


UNEVEN = """\
format: quadnas-space/1
description: the first slot of each stage has two candidates, the second has three
candidates: [{block: mbconv, kernel: [3, 5], expansion: 2}, {block: identity}]
stem: {block: conv_bn, stride: 2, channels: 6}
stages: [{channels: 8, depth: 2, stride: 2}, {channels: 12, depth: 2, stride: 2}]
head: {block: classifier, norm: none}
"""


def uneven_problem(limit_ms: float) -> Problem:
    space = space_from(validated(parse_yaml(UNEVEN, "u"), SpaceFile, "u"), Path("u.yaml"), connects)
    assert [len(slot.candidates) for slot in space.slots] == [2, 3, 2, 3]
    return toy_problem(limit_ms, space=space)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_slots_of_unequal_length_are_derived_as_by_enumeration(share: float) -> None:
    low_ms, high_ms = uneven_problem(1.0).bounds.range
    problem = uneven_problem(low_ms + share * (high_ms - low_ms) * 1.0001)
    scores = np.random.default_rng(0).normal(size=(4, 3))
    scores[[0, 2], 2] = 100.0  # where there is no candidate

    def total(choices: Sequence[int]) -> float:
        return float(sum(scores[slot, choice] for slot, choice in enumerate(choices)))

    every = product(range(2), range(3), range(2), range(3))
    assert derive(scores, problem.limits) == max(filter(problem.fits, every), key=total)


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_every_strategy_searches_slots_of_unequal_length(name: str) -> None:
    problem = uneven_problem(0.6)
    assert not problem.unlimited

    def make() -> Strategy:
        torch.manual_seed(0)
        return STRATEGIES[name](problem)

    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    check_strategy(make, problem, Batch(images, torch.tensor([0, 1, 2, 3])))


def test_a_stage_that_no_candidate_can_begin_is_refused() -> None:
    text = (
        "format: quadnas-space/1\ndescription: d\ncandidates: [{block: identity}]\n"
        "stem: {block: conv_bn, stride: 2}\nstages: [{channels: 4, depth: 2}, {channels: 8, depth: 2}]\n"
        "head: {block: classifier}\n"
    )
    with pytest.raises(
        ConfigError, match=r"s.yaml: stages.1: none of the candidates can turn 4 channels into 8"
    ):
        space_from(validated(parse_yaml(text, "s.yaml"), SpaceFile, "s.yaml"), Path("s.yaml"), connects)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{block: classifier, norm: none}", "{block: classifier, channels: 9}", "drop its 'channels'"),
        ("{block: identity}", "{block: identity, stride: 2}", "unknown key 'stride'"),
        ("expansion: [3, 6]", "expansion: [3, six]", "expansion"),
    ],
)
def test_mistakes_are_named(old: str, new: str, message: str) -> None:
    text = read_text(locate("search_spaces", "proxyless")).replace(old, new)
    with pytest.raises(ConfigError, match=message):
        space_from(validated(parse_yaml(text, "s.yaml"), SpaceFile, "s.yaml"), Path("s.yaml"), connects)
