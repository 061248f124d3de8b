"""A module in evaluation mode -> one self-contained ONNX file, with fixed shapes."""

from collections.abc import Sequence

import torch
from torch import nn

from quadnas.export.quiet import quiet
from quadnas.extras import optional
from quadnas.network import Network, deployed
from quadnas.space.model_spec import ModelSpec

OPSET = 20
"""The first with Gelu as one node; LayerNormalization is one since 17."""


def network_onnx(spec: ModelSpec, network: Network) -> bytes:
    """The ONNX file of a network in its deployed form, for one image of the spec's input size."""
    size = spec.input
    return onnx_bytes(deployed(spec.layers, network), (1, size.channels, size.size, size.size))


def onnx_bytes(module: nn.Module, shape: Sequence[int]) -> bytes:
    """The ONNX file of ``module`` for one float32 input ``images`` of ``shape`` (N, C, H, W), output ``logits``.

    The module is exported in evaluation mode; batch and size are fixed, the weights are inside. Raises
    MachineError if the optional packages are missing.
    """
    optional("onnxscript", "onnx")
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            (torch.zeros(tuple(shape)),),
            input_names=["images"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for part in (
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
    ):
        part.doc_string = ""
        del part.metadata_props[:]  # names of Python objects and paths of this machine
    return bytes(model.SerializeToString())
