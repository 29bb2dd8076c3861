"""Runs every job in this process on a project, then the retry rules with a stand-in for the binary.

check.sh runs it in the validators' environment, with MEDALLION_BIN, MEDALLION_PROJECT and an empty MEDALLION_LAKE.
"""

import json
import stat
import sys
import tempfile
from pathlib import Path

import dagster as dg

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "dagster"))
import medallion_defs
from medallion_defs import Medallion, defs

dg.Definitions.validate_loadable(defs)

instance = dg.DagsterInstance.ephemeral()

done = defs.resolve_job_def("batch").execute_in_process(instance=instance)
assert done.success
written = {event.asset_key.to_user_string(): event.materialization.metadata for event in done.get_asset_materialization_events()}
assert sorted(written) == ["bronze", "gold", "silver"], written
assert all(metadata["rows_written"].value > 0 for metadata in written.values()), written
checks = done.get_asset_check_evaluations()
assert [check.passed for check in checks] == [True], checks

assert defs.resolve_job_def("rerun_date").execute_in_process(instance=instance, partition_key="2025-08-14").success
assert defs.resolve_job_def("monitor").execute_in_process(instance=instance).success
assert defs.resolve_job_def("maintenance").execute_in_process(instance=instance).success


def tries(code: str) -> tuple[bool, int]:
    """Whether the job ended well, and how often the stand-in was started."""
    with tempfile.TemporaryDirectory() as scratch:
        binary, calls = Path(scratch) / "medallion", Path(scratch) / "calls"
        binary.write_text(f"#!/bin/sh\necho x >> {calls}\n{code}\n")
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)

        @dg.job(resource_defs={"medallion": Medallion(binary=str(binary))})
        def stand_in():
            medallion_defs.look()

        result = stand_in.execute_in_process(instance=instance, raise_on_error=False)
        return result.success, len(calls.read_text().split())


medallion_defs.PAUSE_SECONDS = 0
assert tries("exit 0") == (True, 1)
for code in (2, 3, 4, 70):
    assert tries(f"exit {code}") == (False, 1), code
for code in ("exit 5", "exit 6", "kill -9 $$"):
    assert tries(code) == (False, 1 + medallion_defs.MAX_RETRIES), code

# a balance that does not hold: the tables and the failed check are shown, and the step fails
with tempfile.TemporaryDirectory() as scratch:
    binary = Path(scratch) / "medallion"
    report = {"run_id": 9, "new_files": 1, "steps": [], "warnings": {}, "balance": [{"source": "s", "difference": "-1.000000"}]}
    binary.write_text(f"#!/bin/sh\necho '{json.dumps(report)}'\nexit 4\n")
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    failed = dg.materialize(
        [medallion_defs.zones], resources={"medallion": Medallion(binary=str(binary))}, instance=instance, raise_on_error=False
    )
    assert not failed.success
    assert len(failed.get_asset_materialization_events()) == 3
    assert [check.passed for check in failed.get_asset_check_evaluations()] == [False]
print("dagster: 4 jobs on the project, 9 ways to end")
