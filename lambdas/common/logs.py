"""Which loggers follow `castai:logLevel`: our own, and no library's.

With `castai:logLevel=DEBUG` Lambda's runtime sets the root logger to DEBUG before it imports the
handler (awslambdaric, bootstrap.py). At that level botocore logs the answers of Secrets Manager and
IAM, and every request that it signs.
"""

from __future__ import annotations

import logging
from typing import Final

LIBRARIES: Final = ("boto3", "botocore", "httpcore2", "httpx2", "urllib3")
_ROOT: Final = ""


def quiet_libraries() -> None:
    """Hold the root logger and those of the libraries at WARNING or above.

    A handler module calls it when it is imported, before anything of AWS is called.
    """
    for name in (_ROOT, *LIBRARIES):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.getEffectiveLevel(), logging.WARNING))
