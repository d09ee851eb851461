"""What a printed command begins with: how whoever reads it has called this program."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

INSTALLED: Final = "lockloom"
# Worker processes have their parent's arguments.
CALLED_INSTALLED: Final = Path(sys.argv[0] if sys.argv else "").stem == INSTALLED
PROGRAM: Final = os.environ.get(
    "LOCKLOOM_COMMAND", INSTALLED if CALLED_INSTALLED else "python -m stress"
)
"""``tox -e stress`` sets the variable: its environment is not on the reader's path."""
