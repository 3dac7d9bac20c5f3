"""An unexpected error in one sentence: the innermost cause, the file it is about, and what to do where that is known.

Java's exceptions and those of Spark's Python workers arrive wrapped several times, with stack traces as their texts.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 400  # characters of a cause that are quoted
_FILE = re.compile(r"(?:file:|path:?\s+|[Ww]hile reading file )['\"]?(?:file:)?(/[^\s'\",;:)]+)")
_JAVA = re.compile(r"^(?:Caused by: )?((?:[a-z_$][\w$]*\.)+[A-Z][\w$]*(?:Exception|Error|Throwable))(?:: (.*))?$")
_PYTHON = re.compile(r"^((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit|NotFound))(?:: (.*))?$")


@dataclass(frozen=True)
class _Known:
    """A cause that a person can mend: the pattern of its text, and the sentence. ``{file}`` is the file, if any.
    ``of_storage``: the place cannot be read or written.
    """

    pattern: re.Pattern[str]
    sentence: str
    of_storage: bool = False


_KNOWN = (
    _Known(
        re.compile(r"No space left on device|Disk quota exceeded|StorageFull|os error 28\b"),
        "the disk is full{file}: free some space, or choose another folder, and run the same command again",
        of_storage=True,
    ),
    _Known(
        re.compile(r"Read-only file system|os error 30\b"),
        "the file system is read-only{file}: make it writable, or choose another workspace (--set workspace=FOLDER)",
        of_storage=True,
    ),
    _Known(
        re.compile(r"Permission denied|AccessDenied|Operation not permitted|os error 13\b"),
        "writing or reading is not permitted{file}: change its owner or mode, or choose another folder",
        of_storage=True,
    ),
    _Known(
        # deltalake, Arrow and Hadoop, each after retries of its own.
        re.compile(
            r"Generic \w+ error[\w\W]*after \d+ retries|AWS Error (?:NETWORK_CONNECTION|SLOW_DOWN|INTERNAL_FAILURE|"
            r"SERVICE_UNAVAILABLE|UNKNOWN \(HTTP status 5)|Service: S3, Status Code: 5\d\d|AWSServiceIOException|"
            r"AWSServiceThrottledException|AWSStatus500Exception|Unable to execute HTTP request"
        ),
        "the server of the workspace or of the source does not answer, or answers with errors: when it works again, "
        "run the same command again, which goes on where this one stopped",
        of_storage=True,
    ),
    _Known(
        re.compile(r"(?:CUDA|HIP) out of memory"),
        "the GPU has too little memory: use smaller batches (feed.batch_size in training, with training.accumulate for "
        "steps of the same size; release.batch_rows in publish; encoder.token_budget in embed_items), or end what else "
        "is on it",
    ),
    _Known(
        re.compile(r"OutOfMemoryError|Java heap space|GC overhead limit"),
        "Spark has too little memory: give it more with --set spark.driver_memory=8g",
    ),
    _Known(
        # Of Python, numpy and Arrow; PyTorch; C++ and the system.
        re.compile(r"MemoryError|DefaultCPUAllocator: (?:can't|not enough)|std::bad_alloc|Cannot allocate memory"),
        "a process of Python has too little memory: run fewer tasks at once (--set spark.master=local[1]; on a "
        "cluster, executors with fewer cores or more memory), or use a machine with more",
    ),
    _Known(
        re.compile(
            r"Python worker exited unexpectedly|reading the port number from|ExecutorLostFailure|OutOfMemoryKill"
        ),
        "a worker of Spark was killed or crashed; too little memory is the usual reason: run fewer tasks at once "
        "(--set spark.master=local[1]), or give each executor of a cluster more (--set "
        "spark.conf.spark.executor.memoryOverhead=4g), and run the same command again",
    ),
    _Known(
        re.compile(r"UnsatisfiedLinkError|failed to map segment|Operation not permitted.*\.so"),
        "Java cannot load its libraries from the folder of temporary files, mounted noexec or full; set another "
        "with --set spark.conf.spark.driver.extraJavaOptions=-Djava.io.tmpdir=FOLDER",
    ),
    _Known(
        re.compile(
            r"ConnectionRefused|Connection refused|Answer from Java side is empty|Error while sending or receiving"
        ),
        "the Java process of Spark has ended: logs/spark.log of the workspace has its last words; too little memory is "
        "the usual reason (--set spark.driver_memory=8g)",
    ),
)


def explained(error: BaseException) -> tuple[bool, str]:
    """(whether the cause is one that a person can mend, a sentence about the innermost cause of ``error``)."""
    texts = [text for one in _chain(error) for text in _texts(one)]
    whole = "\n".join(texts)
    file = _file_of(error, whole)
    for known in _KNOWN:
        if known.pattern.search(whole):
            return True, known.sentence.format(file=f" ({file})" if file else "")
    cause = _innermost(error, texts)
    if file and file not in cause:
        cause = f"{cause}, in the file {file}"
    return False, cause


def cause_of(error: BaseException) -> str:
    """The sentence of ``explained`` alone."""
    return explained(error)[1]


def first_line(error: BaseException) -> str:
    """The first line of an error's text that is not blank; the name of its class where there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _texts(error: BaseException) -> list[str]:
    """The texts of an error and of the Java exceptions behind it, outermost first."""
    texts = [f"{type(error).__name__}: {error}"]
    java = getattr(error, "java_exception", None)
    depth = 0
    while java is not None and depth < 20:
        try:
            texts.append(f"{java.getClass().getName()}: {java.getMessage()}")
            java = java.getCause()
        except Exception:
            # Java's side may be gone.
            break
        depth += 1
    return texts


def _file_of(error: BaseException, whole: str) -> str | None:
    for one in _chain(error):
        if isinstance(one, OSError) and one.filename:
            return str(one.filename)
    match = _FILE.search(whole)
    return match[1] if match else None


def _innermost(error: BaseException, texts: list[str]) -> str:
    """The last exception that a text names: Java lists causes downwards, Python raises upwards."""
    last: tuple[str, str] | None = None
    first_texts = [text for text in texts if _is_of_spark(text)]
    for line in (line.strip() for text in first_texts for line in text.splitlines()):
        match = _JAVA.match(line) or _PYTHON.match(line)
        if match and match[2] not in (None, "", "null"):
            last = (match[1].rsplit(".", 1)[-1], match[2])
    if last is None:
        outer = next(_chain(error))
        last = (type(outer).__name__, first_line(outer) if str(outer).strip() else "")
    name, message = last
    message = " ".join(message.split())
    short = message if len(message) <= LONGEST else f"{message[:LONGEST]} ..."
    return f"{name}: {short}" if short else name


def _is_of_spark(text: str) -> bool:
    """Whether a text is of an error that crossed from Java or from a worker."""
    return (
        "Py4J" in text
        or "PythonException" in text
        or "SparkException" in text
        or bool(_JAVA.match(text.split("\n")[0]))
    )


def is_storage_error(error: BaseException) -> bool:
    """Whether a disk is full, a place may not be written or a store does not answer, whatever library says so."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return True
    whole = "\n".join(text for one in _chain(error) for text in _texts(one))
    return any(known.of_storage and known.pattern.search(whole) for known in _KNOWN)
