"""The README's code, as a reader would paste it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_code_of_the_readme_finds_its_race_and_replays_it(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    script = tmp_path / "pasted.py"
    script.write_text("\n".join(blocks), encoding="utf-8")

    ran = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=100
    )

    assert ran.stderr == ""
    assert ran.returncode == 0
    assert ran.stdout.startswith("fail assertion in schedule")
    assert "overdrawn: -60" in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 100
