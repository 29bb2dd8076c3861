"""Loads the DAGs as Airflow does and runs the operator with a stand-in for the binary that ends with each exit code.

check.sh runs it in the validators' environment.
"""

import stat
import sys
import tempfile
from pathlib import Path

folder = Path(__file__).resolve().parent.parent / "airflow"
sys.path.insert(0, str(folder))

from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

bag = DagBag(dag_folder=str(folder))
assert not bag.import_errors, bag.import_errors
found = sorted(bag.dags)
assert found == ["medallion_maintenance", "medallion_rerun", "medallion_run"], found

import medallion_dags


def outcome(code: int | str, skip_on=()) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        binary = Path(scratch) / "medallion"
        binary.write_text(f"#!/bin/sh\necho 'a line of the log' >&2\necho '{{\"run_id\": 7, \"commits\": 3}}'\n{code}\n")
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
        medallion_dags.BINARY = str(binary)
        task = medallion_dags.MedallionOperator(task_id="t", arguments=["run"], skip_on=skip_on)
        try:
            result = task.execute({})
        except AirflowFailException:
            return "fails"
        except AirflowSkipException:
            return "skips"
        except AirflowException:
            return "retries"
        assert result and result["run_id"] == 7, result
        return "done"


expected = {"exit 0": "done", "exit 5": "retries", "exit 6": "retries", "kill -9 $$": "retries", "kill -15 $$": "retries"}
expected |= {f"exit {code}": "fails" for code in (2, 3, 4, 70)}
for code, wanted in expected.items():
    got = outcome(code)
    assert got == wanted, f"`{code}`: {got}, not {wanted}"
assert outcome("exit 5", skip_on={5}) == "skips"
print(f"airflow: {len(found)} DAGs, {len(expected) + 1} exit codes")
