"""Writing the graph of a user tower by torch.export: as ONNX, or as a program of PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from learn_spark.model.export.graph import UserGraph

Format = Literal["onnx", "torch"]
OUTPUTS = ("vectors", "events", "unknown")
FILES: dict[str, str] = {"onnx": "user_tower.onnx", "torch": "user_tower.pt2"}
AXES = {
    "items": {0: "batch", 1: "length"},
    "new_items": {0: "new"},
    "times": {0: "batch", 1: "length"},
    **{name: {0: "batch"} for name in OUTPUTS},
}
ONE_FILE = 1 << 30  # bytes; an ONNX file ends at 2 GiB, and larger weights go into a file beside it


def example(graph: UserGraph) -> dict[str, Tensor]:
    """Inputs of the graph by name, in the order of its arguments."""
    inputs = {"items": torch.ones(3, 5, dtype=torch.int64)}
    if graph.content_dim:
        inputs["new_items"] = torch.zeros(2, graph.content_dim)
    if graph.needs_times:
        inputs["times"] = torch.arange(5).expand(3, -1).clone()
    return inputs


def export(graph: UserGraph) -> ExportedProgram:
    """The graph with any number of users, events and new items."""
    # Named sizes would ask for proofs that a shortened row has a size of its own.
    inputs = example(graph)
    shapes = {name: dict.fromkeys(AXES[name], Dim.DYNAMIC) for name in inputs}
    with torch.no_grad():
        return torch.export.export(graph.eval(), (), kwargs=inputs, dynamic_shapes=shapes)


def write(graph: UserGraph, folder: Path, form: Format) -> dict[str, Any]:
    """Write the graph into ``folder``; returns what wrote it: versions and the ONNX opset."""
    program, path = export(graph), folder / FILES[form]
    if form == "torch":
        torch.export.save(program, path)
        return {"torch": torch.__version__}
    import onnx

    # About operators of packages that are not installed, and about copies of shared weights.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        written = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=list(example(graph)), output_names=list(OUTPUTS)
        )
    finally:
        logger.setLevel(level)
    assert written is not None
    for value in (*written.model.graph.inputs, *written.model.graph.outputs):
        assert value.shape is not None
        for axis, name in AXES[str(value.name)].items():
            value.shape[axis] = name
    weights = sum(tensor.nbytes for tensor in graph.state_dict().values())
    written.save(path, external_data=weights > ONE_FILE)
    model = onnx.load(path, load_external_data=False)
    opset = next(one.version for one in model.opset_import if one.domain == "")
    return {"torch": torch.__version__, "onnx": onnx.__version__, "opset": opset}


@torch.inference_mode()
def run(graph: UserGraph, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The graph's outputs by name for arrays ``inputs`` by name, computed by torch."""
    outputs = graph(**{name: torch.from_numpy(values) for name, values in inputs.items()})
    return {name: values.numpy() for name, values in zip(OUTPUTS, outputs, strict=True)}


@torch.inference_mode()
def run_program(path: Path, inputs: Mapping[str, Any]) -> Any:
    """The vectors [B, D] of a program that ``write`` wrote for torch."""
    program = torch.export.load(path).module()
    return program(**{name: torch.from_numpy(values) for name, values in inputs.items()})[0].numpy()
