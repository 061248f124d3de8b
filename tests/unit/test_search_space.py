"""Search spaces and architectures: laws of the canonical text, counts by hand, refusals."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quadnas.blocks.base import connects
from quadnas.config import parse_yaml, validated, write_yaml
from quadnas.errors import ConfigError
from quadnas.latency.devices import load_device
from quadnas.network import load_space, map_sizes
from quadnas.resources import available
from quadnas.search.limits import price_space
from quadnas.search.problem import percentile, sample_latencies_ms
from quadnas.space.architecture import Architecture
from quadnas.space.layer import Layer
from quadnas.space.model_spec import InputSpec, ModelSpec
from quadnas.space.search_space import SearchSpace, SpaceFile, space_from
from tests.toy import FormulaDevice, taps_ms, toy_space

LABELS = (
    "quadra-k3-e2", "quadra-k3-e4", "quadra-k5-e2", "quadra-k5-e4", "quadra-k7-e2", "quadra-k7-e4", "identity",
)  # fmt: skip


def space_of(text: str) -> SearchSpace:
    return space_from(validated(parse_yaml(text, "s.yaml"), SpaceFile, "s.yaml"), Path("s.yaml"), connects)


@given(st.lists(st.lists(st.sampled_from(LABELS), min_size=1, max_size=4), min_size=1, max_size=4))
def test_canonical_text_reads_back(stages: list[list[str]]) -> None:
    architecture = Architecture(tuple(map(tuple, stages)))
    assert Architecture.parse(str(architecture)) == architecture
    assert hash(Architecture.parse(str(architecture))) == hash(architecture)


@pytest.mark.parametrize("text", ["", "|", "a,,b", "a|"])
def test_broken_architecture_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not an architecture"):
        Architecture.parse(text)


@given(st.integers(0, 2**32))
def test_choices_and_architecture_are_inverse(seed: int) -> None:
    space = toy_space(depths=(2, 3))
    choices = space.sample(random.Random(seed))
    assert space.choices(space.architecture(choices)) == choices


def test_toy_space_by_hand() -> None:
    space = toy_space(depths=(2, 1))
    assert space.slots[0].labels == LABELS
    assert space.size == 7**3
    assert map_sizes(space, 64) == [16, 16, 8]
    choices = (5, 6, 0)
    assert str(space.architecture(choices)) == "quadra-k7-e4,identity|quadra-k3-e2"
    layers = [
        (layer.block, layer.channels_in, layer.channels_out, layer.stride)
        for layer in space.layers(choices, 9)
    ]
    assert layers == [
        ("patchify", 3, 8, 4),
        ("quadra", 8, 8, 1),
        ("identity", 8, 8, 1),
        ("downsample", 8, 16, 2),
        ("quadra", 16, 16, 1),
        ("classifier", 16, 9, 1),
    ]


def test_an_architecture_of_another_space_is_refused() -> None:
    space = toy_space()
    with pytest.raises(ConfigError, match="has 4 slots, the architecture has 1"):
        space.choices(Architecture.parse("identity"))
    with pytest.raises(ConfigError, match="did you mean 'quadra-k7-e4'"):
        space.choices(Architecture.parse("quadra-k7-e8,identity|identity,identity"))


def test_two_candidates_with_one_label_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"stages\.0: two candidates would be labelled 'identity'"):
        toy_space(candidates="[{block: identity}, {block: identity}]")


def test_a_stage_can_have_candidates_of_its_own() -> None:
    space = space_of(
        "format: quadnas-space/1\ndescription: d\ncandidates: [{block: identity}]\n"
        "stem: {block: patchify, stride: 2}\ndownsample: {block: downsample, stride: 2}\n"
        "stages:\n- {channels: 4, depth: 1}\n"
        "- {channels: 8, depth: 1, candidates: [{block: quadra, kernel: 3, expansion: [1, 2]}]}\n"
        "head: {block: classifier}\n"
    )
    assert [slot.labels for slot in space.slots] == [("identity",), ("quadra-k3-e1", "quadra-k3-e2")]


@pytest.mark.parametrize("name", ["quadra_bn", "quadranet", "quadranet_s", "quadranet_xs"])
def test_shipped_pyramids_offer_every_quadra_block_and_identity(name: str) -> None:
    space = load_space(name)
    family = "quadra_bn" if name == "quadra_bn" else "quadra"
    labels = tuple(label.replace("quadra", family) for label in LABELS)
    assert all(slot.labels == labels for slot in space.slots)
    assert len({slot.stage for slot in space.slots}) == 4


@pytest.mark.parametrize("name", available("search_spaces"))
def test_every_shipped_space_is_priced_on_the_devices_that_are_searched_for(name: str) -> None:
    for device in ("a100", "cortexA76", "myriadvpu"):
        low_ms, high_ms = price_space(load_space(name), load_device(device), 1000, 224).range
        assert 0 < low_ms < high_ms


def test_the_mixed_space_offers_every_family_in_every_slot() -> None:
    for slot in load_space("mixed").slots:
        assert {label.partition("-")[0] for label in slot.labels} == {"quadra", "conv", "mbconv", "identity"}


@pytest.mark.parametrize(
    ("device", "limit_ms", "name"),
    [("cortexA76", 300, "quadranet"), ("myriadvpu", 30, "quadranet_xs"), ("a100", 3, "quadranet_s")],
)
def test_every_device_has_a_space_around_its_limit(device: str, limit_ms: float, name: str) -> None:
    space = load_space(name)
    table = price_space(space, load_device(device), 1000, 224)
    sampled = sample_latencies_ms(table, 1000)
    assert percentile(sampled, 0.1) < limit_ms < percentile(sampled, 0.9)


def test_sampled_latencies_are_those_of_the_table() -> None:
    """On two slots of known cost the mean of many samples is the mean of all architectures."""
    space = toy_space(depths=(1, 1))
    table = price_space(space, FormulaDevice(taps_ms), 10, 64)
    mean = table.fixed + sum(sum(row) / len(row) for row in table.rows)
    sampled = sample_latencies_ms(table, 4000)
    assert sum(sampled) / 4000 == pytest.approx(mean, rel=0.05)
    assert sampled == sorted(sampled)


def test_model_spec_text_reads_back() -> None:
    spec = ModelSpec(
        name="m",
        input=InputSpec(size=224, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1e-3)),
        classes=("yes", "no", "1e3", "null"),  # texts that YAML could take for something else
        layers=(
            Layer(block="patchify", channels_in=3, channels_out=4, stride=4),
            Layer(block="quadra", channels_in=4, channels_out=4, arguments={"kernel": 3, "expansion": 2}),
        ),
        provenance={"limit_ms": 1e-7, "note": "a: b"},
    )
    assert validated(parse_yaml(write_yaml(spec), "t"), ModelSpec, "t") == spec
