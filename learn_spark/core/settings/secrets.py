"""Which settings are secrets, and texts without them: for saved settings, pages, logs and errors."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"
_WORDS = r"pass(?:word|wd|phrase)|pwd|secret|(?:access|account|api|private|shared|encryption)[._-]?key|credential|jaas"
_KEY = re.compile(rf"{_WORDS}|(?:^|[._-])(?:auth|session|bearer|refresh|access)?_?token$|\.sas\.", re.IGNORECASE)
# user:password@ of an address, and password=... or token: ... inside a value.
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@:]*:[^/\s@]*@")
_IN_VALUE = re.compile(
    rf"((?:(?:{_WORDS})[\w.-]*|token|signature|(?<=[?&])sig)[\"']?\s*[=:]\s*)(\"[^\"]*\"?|'[^']*'?|[^\s;&,]+)",
    re.IGNORECASE,
)


def is_secret(key: str) -> bool:
    """Whether the setting of this name is a secret, such as ``spark.hadoop.fs.s3a.secret.key``."""
    return bool(_KEY.search(key))


def without_secrets(text: str) -> str:
    """The text with ``***`` for the user and password of an address and for what follows ``password=`` and the like."""
    return _IN_VALUE.sub(rf"\1{HIDDEN}", _IN_ADDRESS.sub(f"{HIDDEN}@", text))


def hidden(node: Any, key: str = "") -> Any:
    """Plain values with ``***`` for those of secret keys, and texts ``without_secrets``. ``key`` is the name of
    ``node``."""
    if is_secret(key) and node is not None and not isinstance(node, bool):
        return HIDDEN
    if isinstance(node, dict):
        return {name: hidden(value, str(name)) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [hidden(value) for value in node]
    return without_secrets(node) if isinstance(node, str) else node
