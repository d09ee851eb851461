"""The one place that configures loguru: messages to standard error, records to ``--log-file``.

Only the parent process logs, and only between schedules: loguru's handlers take real locks, which a
thread that is parked on its baton must never hold. ``harness`` and ``model`` do not import it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loguru import logger

from harness.errors import UsageError

if TYPE_CHECKING:
    from loguru import Record

_PREFIX: Final = {"WARNING": "warning: ", "ERROR": "error: ", "CRITICAL": "error: "}


def configure(*, quiet: bool = False, log_file: Path | None = None) -> None:
    """Replace whatever was configured before.

    Args:
        quiet: Only warnings and errors on standard error.
        log_file: Also write every record there, one JSON object a line; replaced if it exists.

    Raises:
        UsageError: The file cannot be written.
    """
    logger.remove()
    logger.add(
        _write_error,
        level="WARNING" if quiet else "INFO",
        format=_console_format,
        filter=_for_people,
        colorize=False,
        catch=False,
    )
    if log_file is not None:
        try:
            log_file.parent.mkdir(parents=True, exist_ok=True)
            # `diagnose` would show values of local variables, and so run the model's `repr`.
            logger.add(
                log_file, level="DEBUG", serialize=True, mode="w", enqueue=False, diagnose=False
            )
        except OSError as error:
            raise UsageError(
                f"cannot write --log-file {log_file}: {error.strerror}; name a file in a folder "
                "that you may write to"
            ) from None


def close() -> None:
    """Flush and close what ``configure`` opened."""
    logger.remove()


def _write_error(text: str) -> None:
    # Looked up at each call: standard error may have been replaced since.
    sys.stderr.write(text)
    sys.stderr.flush()


def _for_people(record: Record) -> bool:
    """Records with an ``event`` are for programs; people read the report."""
    return "event" not in record["extra"]


def _console_format(record: Record) -> str:
    # `{message}` alone: braces in a message must not be read as a format.
    return _PREFIX.get(record["level"].name, "") + "{message}\n"
