"""Checks of arguments that all losses share."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def check_shapes(user: Tensor, shapes: Mapping[str, tuple[Tensor | None, tuple[int, ...]]]) -> None:
    """Raise ValueError for the first tensor of ``shapes`` (name -> tensor, expected shape) of another shape."""
    for name, (tensor, expected) in shapes.items():
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(
                f"{name} has the shape {tuple(tensor.shape)}, expected {expected} for user {tuple(user.shape)}"
            )


def check_temperature(temperature: float | Tensor) -> None:
    """Raise ValueError for a temperature that is not above 0."""
    value = float(temperature.detach() if isinstance(temperature, Tensor) else temperature)
    if not value > 0.0:
        raise ValueError(f"temperature {value} must be above 0")
