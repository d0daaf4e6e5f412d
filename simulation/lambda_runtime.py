"""Lambda's runtime around a shipped function: log levels, log handlers and standard output."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, Final, TextIO

from aws_lambda_powertools import Logger

from lambdas.common.logs import LIBRARIES, quiet_libraries

_ROOT: Final = ""


@contextmanager
def lambda_runtime(output: TextIO, ours: Logger, level: str) -> Iterator[None]:
    """All that is logged and printed goes to `output`, as to the function's log group.

    The root logger has its level before the handler is imported (awslambdaric, bootstrap.py).
    `ours`: the function's logger.
    """
    root, own = logging.getLogger(), logging.getLogger(ours.name)
    levels = {name: logging.getLogger(name).level for name in (_ROOT, ours.name, *LIBRARIES)}
    handlers, root.handlers = root.handlers, [logging.StreamHandler(output)]
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.NOTSET)
    root.setLevel(level)
    quiet_libraries()  # as the handler's module does when it is imported
    own.setLevel(level)
    to: list[Any] = [each for each in own.handlers if isinstance(each, logging.StreamHandler)]
    streams = [each.stream for each in to]
    # Without setStream, which flushes the former stream: it may be closed.
    for each in to:
        each.stream = output
    try:
        with redirect_stdout(output):
            yield
    finally:
        root.handlers = handlers
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)
        for each, former in zip(to, streams, strict=True):
            each.stream = former
