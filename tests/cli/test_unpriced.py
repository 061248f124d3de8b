"""A device that has no price for some candidates: zcu102 knows neither LayerNorm nor GELU."""

import json
import math
from pathlib import Path

from tests.cli.command import TINY_SEARCH, TINY_SPACE, quadnas, write

MIXED = (
    TINY_SPACE.replace("- {block: id", "- {block: quadra_bn, kernel: [3], expansion: [2]}\n  - {block: id")
    .replace("stem: {block: patchify, stride: 4}", "stem: {block: conv_bn, stride: 2}")
    .replace("downsample: {block: downsample, stride: 2}", "downsample: {block: conv_bn, stride: 2}")
    .replace("head: {block: classifier}", "head: {block: classifier, norm: none}")
)  # fmt: skip


def test_a_search_names_what_it_leaves_out_and_never_chooses_it(place: Path) -> None:
    write(place / "mixed.yaml", MIXED)
    config = TINY_SEARCH.replace("cortexA76", "zcu102") + "space: ./mixed.yaml\n"
    write(place / "search.yaml", config)
    answer = quadnas("search", "--config", "search.yaml", "--out", "run")
    assert answer.code == 0, answer.err
    missing = (
        "zcu102 has no price for some operators of quadra-k3-e2, quadra-k5-e2: the search leaves them out"
    )
    assert missing in answer.err
    assert "Stage 1 could not use quadra k3 e2, quadra k5 e2: the device has no price" in " ".join(
        answer.out.split()
    )
    assert "Stage 1 could not use quadra k3 e2, quadra k5 e2" in Path("run/report.html").read_text()
    chosen = json.loads(Path("run/result.json").read_text())["architecture"]
    assert "quadra-k" not in chosen


def test_percentiles_are_those_of_the_networks_with_a_price(place: Path) -> None:
    write(place / "mixed.yaml", MIXED)
    write(place / "priced.yaml", MIXED.replace("  - {block: quadra, kernel: [3, 5], expansion: [2]}\n", ""))
    mixed, priced = (
        quadnas("spaces", "show", f"./{name}.yaml", "--device", "zcu102", "--json").json["latency_ms"][
            "zcu102"
        ]
        for name in ("mixed", "priced")
    )
    assert mixed == priced
    assert all(math.isfinite(value) for value in mixed.values())


def test_a_network_without_a_total_names_the_operators() -> None:
    answer = quadnas("latency", "quadranet12_xxs", "--device", "zcu102")
    assert answer.code == 4
    assert (
        "quadnas: zcu102 has no price for layernorm, gelu in quadranet12_xxs: no total can be given"
        in answer.err
    )
