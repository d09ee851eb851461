"""An export as Parquet has the rows and the types of the store."""

from __future__ import annotations

from pathlib import Path

from campaigning import begin, drive, small_plan
from pyarrow import parquet
from stress_cli import Cli

from stress.campaigns.store import Store


def test_a_campaign_is_exported_as_parquet(call: Cli, tmp_path: Path) -> None:
    with Store(str(tmp_path / "s.sqlite"), make=True) as store:
        drive(store, begin(store, small_plan()))
    ran = call("campaign", "export", "--store", "s.sqlite", "--format", "parquet", "-o", "tables")
    table = parquet.read_table(tmp_path / "tables" / "parts.parquet").to_pydict()

    assert ran.code == 0
    assert table["number"] == list(range(1, 12))
    assert table["schedules"] == [50, 50, *[10] * 9]
    assert set(table["seed"]) == {"0", "1", "2"}
