"""A device of one's own: sample kernels, measure them here, fit, check on whole networks, write the folder.

What comes next follows from the settings and from what was measured before, which the folder's journal holds:
after a kill the same command goes on where it stood.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, count
from pathlib import Path
from statistics import fmean

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from quadnas.calibrate.design import Design
from quadnas.calibrate.fit import ARRAY_FILE, fit_networks
from quadnas.calibrate.measured import MeasuredNetwork
from quadnas.calibrate.own.bench import Bench, Measured
from quadnas.calibrate.own.facts import facts_of
from quadnas.calibrate.own.fusion_rules import Rules, probes, rules_from
from quadnas.calibrate.own.measuring import pinned, timed_ms
from quadnas.calibrate.own.runtime import RUNTIMES, Graph
from quadnas.calibrate.own.sampling import FAMILIES, finer_chain, prior_chain, reference_chain
from quadnas.calibrate.own.settings import CalibrateSettings
from quadnas.errors import ConfigError
from quadnas.latency.backends.additive import Additive
from quadnas.latency.card import DeviceCard, Rerun, write_card
from quadnas.latency.fusion import fuse
from quadnas.latency.model import LatencyModel, estimate
from quadnas.network import kernels_of, load_space, operators_of, require_size
from quadnas.run.folder import RunFolder
from quadnas.run.interrupt import stop_requested
from quadnas.search.constraint import Limit, derive
from quadnas.search.limits import price_space
from quadnas.space.search_space import SearchSpace

CLASSES = 1000
BAD = 0.10  # relative error of a chain around which finer samples are drawn
CONFIDENCE = 0.9
DOUBTFUL = 0.1  # weight of a graph that never ran undisturbed


@dataclass(frozen=True, slots=True)
class Stage:
    """At most ``count`` graphs in at most ``share`` of the time."""

    name: str
    count: int
    share: float


FUSION = Stage("fusion", len(probes()), 0.01)
KERNELS = Stage("kernels", 720, 0.35)
TRAINING = Stage("networks", 100, 0.20)
FINER = Stage("finer", 240, 0.10)
HELD_OUT = Stage("held-out", 60, 0.15)
AGAIN = Stage("again", 32, 0.05)
WINNERS = Stage("winners", 32, 0.10)


def open_calibration(settings: CalibrateSettings, out: Path) -> RunFolder:
    """The folder of a calibration, new or begun before with the same settings; raises ConfigError, DataError."""
    wanted = settings.model_dump(mode="json")
    if not RunFolder.exists(out):
        return RunFolder.create(out, wanted)
    folder = RunFolder.open(out)
    if folder.settings != wanted:
        changed = ", ".join(key for key in wanted if folder.settings.get(key) != wanted[key])
        raise ConfigError(
            f"{out} holds a calibration with other settings ({changed or 'of another command'}); give those to go "
            "on with it, or choose another --out"
        )
    return folder


def calibrate_here(settings: CalibrateSettings, out: Path, observe: Callable[[str], None]) -> DeviceCard:
    """Calibrate this machine into the folder ``out``, from the start or from where it stood there.

    ``observe`` is told what was measured. Raises ConfigError, MachineError, DataError, Interrupted.
    """
    space = load_space(settings.space)
    require_size(space.layers(len(space.slots) * (0,), CLASSES), settings.input_size)
    chosen = RUNTIMES[settings.runtime]
    with pinned(settings.threads), stop_requested() as stop:
        runtime = chosen(settings.threads)
        with open_calibration(settings, out) as folder:
            reference = Graph("reference", reference_chain())
            bench = Bench(folder, runtime, reference, timed_ms, time.monotonic, stop, observe)
            return calibrate(settings, space, runtime.description, bench, folder)


def calibrate(
    settings: CalibrateSettings, space: SearchSpace, runtime: str, bench: Bench, folder: RunFolder
) -> DeviceCard:
    """Measure, fit and check; writes card and arrays into ``folder``. Raises Interrupted, DataError."""

    def run(stage: Stage, graphs: Iterator[Graph]) -> list[Measured]:
        return bench.run(stage.name, graphs, stage.count, stage.share * settings.minutes * 60)

    rules = rules_from(run(FUSION, iter(probes())))
    kernels = run(KERNELS, _prior_graphs(rules))
    training = run(TRAINING, _network_graphs(settings, space, rules, held_out=False))
    kernels += run(FINER, _finer_graphs(settings, runtime, rules, [*kernels, *training]))
    held_out = run(HELD_OUT, _network_graphs(settings, space, rules, held_out=True))
    again = run(AGAIN, iter([one.graph for one in held_out]))
    card, file = _fit(settings, runtime, rules, kernels, training, held_out)
    model = Additive(card, safetensors.numpy.load(file), 1)
    limits_ms: list[float] = []
    winners = run(WINNERS, _winner_graphs(settings, space, model, limits_ms))
    everything = [*kernels, *training, *held_out, *again, *winners]
    rerun = Rerun(
        space=space.name,
        input_size=settings.input_size,
        repeated=len(again),
        repeated_within_5=_repeated(held_out, again, 0.05),
        repeated_within_10=_repeated(held_out, again, 0.10),
        winners=len(winners),
        winners_within=_share(
            [w.timing.latency_ms <= limit for w, limit in zip(winners, limits_ms, strict=False)]
        ),
        confidence=CONFIDENCE,
        disturbed=round(fmean(one.timing.disturbed for one in everything), 4),
    )
    card = card.model_copy(update={"rerun": rerun})
    folder.write(ARRAY_FILE, file)
    folder.write("card.yaml", write_card(card))
    return card


def _prior_graphs(rules: Rules) -> Iterator[Graph]:
    """The families in turn, without the fifth that every fit leaves out: what is held out are whole networks."""
    draw = random.Random(0)  # noqa: S311
    for number in count():
        family = sorted(FAMILIES)[number % len(FAMILIES)]
        graph = Graph(family, prior_chain(family, draw))
        if not _measured(graph, rules).held_out:
            yield graph


def _network_graphs(
    settings: CalibrateSettings, space: SearchSpace, rules: Rules, *, held_out: bool
) -> Iterator[Graph]:
    """Architectures drawn uniformly, each once, of one side of the split."""
    draw = random.Random(1)  # noqa: S311
    seen: set[tuple[int, ...]] = set()
    for _ in range(1000):
        choices = space.sample(draw)
        graph = _network(settings, space, choices)
        if choices not in seen and _measured(graph, rules).held_out == held_out:
            seen.add(choices)
            yield graph


def _network(settings: CalibrateSettings, space: SearchSpace, choices: Sequence[int]) -> Graph:
    layers = space.layers(choices, CLASSES)
    return Graph(space.name, tuple(operators_of(layers, settings.input_size)), layers)


def _finer_graphs(
    settings: CalibrateSettings, runtime: str, rules: Rules, measured: Sequence[Measured]
) -> Iterator[Graph]:
    """Chains beside those that a fit to all of them misses by more than ``BAD``."""
    networks, importance = _samples(measured, rules)
    design = Design.of(facts_of(settings, runtime, rules, networks), networks)
    predicted_ms = design.predict_ms(design.solve(np.ones(len(networks), dtype=bool), importance))
    missed = np.abs(predicted_ms / design.measured_ms - 1) > BAD
    bad = [one.graph for one in compress(measured, missed.tolist()) if not one.graph.layers]
    draw = random.Random(2)  # noqa: S311
    draw.shuffle(bad)
    for number in count() if bad else ():
        graph = bad[number % len(bad)]
        finer = Graph(graph.family, finer_chain(graph.family, graph.operators, draw))
        if not _measured(finer, rules).held_out:
            yield finer


def _fit(
    settings: CalibrateSettings,
    runtime: str,
    rules: Rules,
    kernels: Sequence[Measured],
    training: Sequence[Measured],
    held_out: Sequence[Measured],
) -> tuple[DeviceCard, bytes]:
    """The card and the arrays; the training networks' errors give the interval, the held-out networks judge."""
    networks, importance = _samples([*kernels, *training], rules)
    networks += [_measured(one.graph, rules, one.timing.latency_ms) for one in held_out]
    importance = np.concatenate([importance, np.ones(len(held_out))])
    fitted = np.array([not network.held_out for network in networks])
    facts = facts_of(settings, runtime, rules, networks)
    found = Design.of(facts, networks).solve(fitted, importance)
    useful = {
        op: tuple(term for term, value in zip(facts.terms[op], values, strict=True) if value > 0)
        or facts.terms[op][:1]
        for op, values in found.items()
    }
    whole = np.array([network.family not in FAMILIES for network in networks])
    return fit_networks(facts.model_copy(update={"terms": useful}), networks, importance, whole)


def _samples(measured: Sequence[Measured], rules: Rules) -> tuple[list[MeasuredNetwork], NDArray[np.float64]]:
    """What is fitted, and its weights: all whole networks together weigh as much as all chains."""
    whole = np.array([bool(one.graph.layers) for one in measured])
    sound = np.array([1.0 if one.timing.visits else DOUBTFUL for one in measured])
    weight = max(sound[~whole].sum() / sound[whole].sum(), 1.0)
    networks = [_measured(one.graph, rules, one.timing.latency_ms) for one in measured]
    return networks, sound * np.where(whole, weight, 1.0)


def _measured(graph: Graph, rules: Rules, latency_ms: float = 1.0) -> MeasuredNetwork:
    return MeasuredNetwork("", graph.family, tuple(fuse(graph.operators, rules.fusion)), latency_ms)


def _winner_graphs(
    settings: CalibrateSettings, space: SearchSpace, model: LatencyModel, limits_ms: list[float]
) -> Iterator[Graph]:
    """Networks with the best random scores within a limit that binds; ``limits_ms`` collects the limits."""
    table = price_space(space, model, CLASSES, settings.input_size, CONFIDENCE)
    generator = np.random.default_rng(3)
    priced = table.priced.numpy()

    def bound_ms(choices: Sequence[int]) -> float:
        kernels = kernels_of(space.layers(choices, CLASSES), settings.input_size, model)
        return estimate(model, kernels).upper_ms(CONFIDENCE, winner=True)

    while True:
        scores = np.where(priced, generator.standard_normal(priced.shape), -np.inf)
        low, high = table.range[0], table.of(scores.argmax(axis=1).tolist())
        limit_ms = low + float(generator.uniform(0.2, 0.9)) * (high - low)
        limits_ms.append(limit_ms)
        yield _network(
            settings, space, derive(scores, [Limit(model.card.device, "ms", limit_ms, table, bound_ms)])
        )


def _repeated(first: Sequence[Measured], second: Sequence[Measured], tolerance: float) -> float:
    """Share of networks whose second measurement is within ``tolerance`` of the first."""
    pairs = zip(first, second, strict=False)
    return _share([abs(b.timing.latency_ms / a.timing.latency_ms - 1) <= tolerance for a, b in pairs])


def _share(hits: Sequence[bool]) -> float:
    return round(fmean(hits), 4) if hits else 0.0
