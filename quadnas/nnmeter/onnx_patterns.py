"""Operators that exporters write as many small nodes, contracted to the one node that they are.

nn-Meter would read the means of a LayerNorm as global pools and charge the 1 inside GELU as a whole sum.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from quadnas.nnmeter.onnx_graph import Node, OnnxGraph


@dataclass(frozen=True, slots=True)
class _Match:
    """The nodes that one node replaces; it stands in the place of the last of them."""

    nodes: tuple[Node, ...]
    replacement: Node


class _Links:
    """Who gives and who reads every tensor."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.constants = graph.constants
        self._readers = graph.readers()
        self._giver = {name: node for node in graph.nodes for name in node.outputs}

    def giver(self, tensor: str, *ops: str) -> Node | None:
        """The node that computes ``tensor``, if it is one of ``ops``."""
        node = self._giver.get(tensor)
        return node if node is not None and node.op in ops else None

    def reader(self, tensor: str, *ops: str) -> Node | None:
        """The first of ``ops`` that reads ``tensor``."""
        return next((node for node in self._readers.get(tensor, ()) if node.op in ops), None)

    def readers(self, tensor: str) -> Sequence[Node]:
        """All that read ``tensor``."""
        return self._readers.get(tensor, ())

    def other(self, node: Node, tensor: str) -> str:
        """The operand of a node of two that is not ``tensor``; the same one if it stands twice."""
        first, second = node.inputs
        return second if first == tensor else first


def contracted(graph: OnnxGraph) -> OnnxGraph:
    """The graph with LayerNorm, GELU, Swish and hard swish as one node each."""
    for find in (_layer_norms, _erf_gelus, _hard_swishes, _self_gated):
        graph = _replaced(graph, find)
    return graph


def _replaced(graph: OnnxGraph, find: Callable[[OnnxGraph, _Links], Iterator[_Match]]) -> OnnxGraph:
    gone: set[int] = set()
    instead: dict[int, Node] = {}
    links = _Links(graph)
    for match in find(graph, links):
        inside = {id(node) for node in match.nodes}
        results = {name for node in match.nodes for name in node.outputs} - set(match.replacement.outputs)
        leaks = any(id(reader) not in inside for name in results for reader in links.readers(name))
        if not leaks and not inside & gone:
            gone |= inside
            instead[id(match.nodes[-1])] = match.replacement
    nodes = (
        instead.get(id(node), node) for node in graph.nodes if id(node) in instead or id(node) not in gone
    )
    return replace(graph, nodes=tuple(nodes))


def _layer_norms(graph: OnnxGraph, links: _Links) -> Iterator[_Match]:
    """(x - mean) / sqrt(mean of its square + epsilon), then a factor and a summand per channel if there are."""
    for mean in graph.nodes:
        if mean.op != "ReduceMean":
            continue
        source = mean.inputs[0]
        centred = [n for n in links.readers(mean.outputs[0]) if n.op == "Sub" and n.inputs[0] == source]
        for branch in centred:
            d = branch.outputs[0]
            chain = [mean, *centred]
            square = links.reader(d, "Pow") or next(
                (n for n in links.readers(d) if n.op == "Mul" and set(n.inputs) == {d}), None
            )
            for ops in (("ReduceMean",), ("Add",), ("Sqrt",)):
                if square is None:
                    break
                chain.append(square)
                square = links.reader(square.outputs[0], *ops)
            if square is None:
                continue
            chain.append(square)
            root = square
            if reciprocal := links.reader(root.outputs[0], "Reciprocal"):
                chain.append(reciprocal)
                root = reciprocal
            last = links.reader(root.outputs[0], "Div", "Mul")
            if last is None or links.other(last, root.outputs[0]) not in {n.outputs[0] for n in centred}:
                continue
            chain.append(last)
            chain += _affine(links, last)
            axes = {"axes": graph.axes(mean)}
            yield _Match(tuple(chain), Node("LayerNormalization", (source,), chain[-1].outputs, axes))
            break


def _affine(links: _Links, node: Node) -> list[Node]:
    """A product and a sum with constants, each the only reader of what is before it."""
    found = []
    for op in ("Mul", "Add"):
        readers = links.readers(node.outputs[0])
        if len(readers) == 1 and readers[0].op == op:
            if links.other(readers[0], node.outputs[0]) not in links.constants:
                break
            node = readers[0]
            found.append(node)
    return found


def _erf_gelus(graph: OnnxGraph, links: _Links) -> Iterator[_Match]:
    """x * 0.5 * (1 + erf(x / sqrt 2)), multiplied in any order."""
    for erf in graph.nodes:
        if erf.op == "Erf":
            scaled = links.giver(erf.inputs[0], "Div", "Mul")
            plus = links.reader(erf.outputs[0], "Add")
            if scaled is not None and plus is not None:
                yield from _gated(links, [scaled, erf, plus], "Gelu")


def _hard_swishes(graph: OnnxGraph, links: _Links) -> Iterator[_Match]:
    """x * min(max(x + 3, 0), 6) / 6, multiplied in any order."""
    for clip in graph.nodes:
        if clip.op == "Clip":
            plus = links.giver(clip.inputs[0], "Add")
            if plus is not None:
                yield from _gated(links, [plus, clip], "HardSwish")


def _gated(links: _Links, gate: list[Node], op: str) -> Iterator[_Match]:
    """A gate whose first node reads x and a constant, and the products of the gate with x and a constant."""
    if not set(gate[0].inputs) & set(links.constants):
        return
    source = next((name for name in gate[0].inputs if name not in links.constants), "")
    chain, missing = list(gate), {"x", "constant"}
    while missing and (product := links.reader(chain[-1].outputs[0], "Mul", "Div")):
        other = links.other(product, chain[-1].outputs[0])
        scaled = links.giver(other, "Mul", "Div")
        if other in links.constants:
            missing.discard("constant")
        elif other == source:
            missing.discard("x")
        elif scaled and source in scaled.inputs and links.other(scaled, source) in links.constants:
            chain.insert(0, scaled)
            missing.clear()
        else:
            return
        chain.append(product)
    if source and not missing:
        yield _Match(tuple(chain), Node(op, (source,), chain[-1].outputs))


def _self_gated(graph: OnnxGraph, links: _Links) -> Iterator[_Match]:
    """x * sigmoid(x) and x * hard sigmoid(x)."""
    for gate in graph.nodes:
        name = {"Sigmoid": "Swish", "HardSigmoid": "HardSwish"}.get(gate.op)
        product = links.reader(gate.outputs[0], "Mul") if name else None
        if name and product and set(product.inputs) == {gate.inputs[0], gate.outputs[0]}:
            yield _Match((gate, product), Node(name, gate.inputs[:1], product.outputs))
