"""The commands of the ground truth."""

import argparse
from pathlib import Path

from benchmarks.ground_truth.comparison import compare
from benchmarks.ground_truth.plan import Truth
from benchmarks.ground_truth.report import report
from benchmarks.ground_truth.rivals import RIVALS
from benchmarks.ground_truth.searches import search_together
from benchmarks.ground_truth.training import work_together
from quadnas.data.augmentation import NO_AUGMENTATION
from quadnas.training.recipe import Recipe

TABLE = Path(__file__).with_name("fashion_truth.jsonl")
SEARCHES = Path(__file__).with_name("searches.jsonl")
FASHION = Truth(
    space="fashion_truth",
    data="fashion-mnist",
    train_images=12_000,
    train_size=28,
    epochs=4,
    recipe=Recipe(batch_size=64, rate=1e-2, label_smoothing=0.0, augmentation=NO_AUGMENTATION),
    devices=("cortexA76", "myriadvpu", "a100"),
    input_size=224,
    networks=300,
    repeated=20,
    seeds=5,
    limits=(0.25, 0.5, 0.75),
    finalists=10,
)


def main() -> None:
    """``train`` goes on with the table, ``fit`` says what it holds; ``search`` and ``compare`` likewise."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train what is missing; may be killed and started again")
    training.add_argument("--out", type=Path, default=TABLE)
    training.add_argument("--searches", type=Path, default=SEARCHES, help="whose choices are trained at last")
    fitting = commands.add_parser("fit", help="noise, ceiling, fit, effects, the best networks")
    searching = commands.add_parser("search", help="search what is missing; may be killed and started again")
    searching.add_argument("--out", type=Path, default=SEARCHES)
    searching.add_argument("--strategies", nargs="+", choices=RIVALS, default=list(RIVALS))
    searching.add_argument("--seeds", type=int, default=5)
    for working in (training, searching):
        working.add_argument("--processes", type=int, default=2)
    comparing = commands.add_parser("compare", help="regret, ranking and cost of the searches")
    comparing.add_argument("--searches", type=Path, default=SEARCHES)
    for reading in (fitting, comparing):
        reading.add_argument("--table", type=Path, default=TABLE)
        reading.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.command == "train":
        work_together(FASHION, options.out, options.searches, options.processes)
    elif options.command == "search":
        search_together(FASHION, options.out, options.strategies, options.seeds, options.processes)
    elif options.command == "compare":
        compare(FASHION, options.table, options.searches, options.picture)
    else:
        report(FASHION, options.table, options.picture)


if __name__ == "__main__":
    main()
