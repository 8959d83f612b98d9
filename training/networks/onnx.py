"""Exports a torch module to an ONNX graph with a symbolic batch dimension."""

import warnings

import torch
from torch import nn

from serving.bundle.manifest import INPUT_NAME

OPSET = 20
"""Operator set: TensorRT 11 supports 9 to 25."""


MAX_GRAPH_BYTES = 2**31 - 2**24
"""Limit of the weights in one file: protobuf holds less than 2 GiB, and the graph itself takes a few megabytes."""


def export_graph(module: nn.Module, crop: int, *, output_name: str, max_bytes: int = MAX_GRAPH_BYTES) -> bytes:
    """Trace a module in eval mode.

    Args:
        module: takes uint8 `[N, crop, crop, 3]`.
        output_name: of the graph's one output.

    Returns:
        A serialised ModelProto, weights inside, whose input `images` has the symbolic batch dimension `N`.

    Raises:
        ValueError: if the weights have more than `max_bytes`, or the network cannot be expressed in ONNX.
    """
    weights = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    if weights > max_bytes:
        raise ValueError(
            f"the network has {weights / 1e9:.1f} GB of weights, and an ONNX file holds at most {max_bytes / 1e9:.1f} "
            "GB: choose a smaller backbone"
        )
    example = torch.zeros(2, crop, crop, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations; the graph is checked afterwards
        try:
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                input_names=[INPUT_NAME],
                output_names=[output_name],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise ValueError(
                f"this network cannot be expressed in ONNX, which serving needs ({reason}); choose another --arch"
            ) from error
    assert program is not None
    model = program.model_proto
    # The exporter records for every node the source line and file on this machine: a quarter of a megabyte that no
    # runtime reads, and private paths in a deployed graph.
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model.SerializeToString()
