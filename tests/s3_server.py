"""moto's S3 server, in which two requests with If-None-Match for one key cannot both be the first.

moto looks for the key and stores it in two steps; a real S3 does both in one. The Python of .venv-servers runs it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from moto.s3.responses import S3Response  # type: ignore[import-not-found,unused-ignore]
from moto.server import main  # type: ignore[import-not-found,unused-ignore]

_one_at_a_time = threading.RLock()


def _in_one_step(method: Callable[..., Any]) -> Callable[..., Any]:
    """``method`` under the lock; moto has read the whole request before it calls it."""

    @functools.wraps(method)
    def locked(*arguments: Any, **named: Any) -> Any:
        with _one_at_a_time:
            return method(*arguments, **named)

    return locked


if __name__ == "__main__":
    for name in ("put_object", "_key_response_post"):
        setattr(S3Response, name, _in_one_step(getattr(S3Response, name)))
    main()
