"""A module with weights from a file, where neither the file nor what describes the module is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn
from torch.overrides import TorchFunctionMode

_Module = TypeVar("_Module", bound=nn.Module)
Weights = dict[str, torch.Tensor]  # the tensors of a module by name


def tensors_of(content: bytes) -> Weights:
    """The tensors of a safetensors file. Raises ValueError where its header is wrong."""
    try:
        return load(content)
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file: {' '.join(str(error).split())}") from None


def module_with(
    build: Callable[[], _Module], described: Mapping[str, Any], weights: Mapping[str, torch.Tensor]
) -> _Module:
    """``build()`` with ``weights``, in memory that grows with the weights and not with what ``described`` claims.

    ``described`` are the arguments that ``build`` uses. The module is built on PyTorch's meta device first, which has
    shapes and no numbers. Raises ValueError where an argument exceeds what the weights can have, and where names or
    shapes differ.
    """
    numbers = sum(tensor.numel() for tensor in weights.values())
    for key, value in _integers(described):
        if value > (len(weights) if "layers" in key else numbers):
            raise ValueError(f"{key} is {value:,}, but the weights are {len(weights):,} tensors of {numbers:,} numbers")
    with torch.device("meta"), _WithoutNormal():
        expected = {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(f"the tensor {name} should be {expected.get(name)}, and is {found.get(name)}")
    module = build()
    module.load_state_dict(dict(weights))
    return module


class _WithoutNormal(TorchFunctionMode):
    """Leaves out ``normal_``: on the meta device its first call imports PyTorch's compiler, for seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "normal_":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _integers(node: Any, key: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _integers(value, str(name))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _integers(value, key)
    elif isinstance(node, int):
        yield key, node
