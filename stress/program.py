"""What a printed command begins with: how whoever reads it can call this program."""

from __future__ import annotations

import os
from typing import Final

PROGRAM: Final = os.environ.get("LOCKLOOM_COMMAND", "python -m stress")
"""``tox -e stress`` sets it: its environment is not on the reader's path."""
