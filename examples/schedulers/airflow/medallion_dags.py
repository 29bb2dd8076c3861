"""Runs of medallion as Airflow DAGs: batches, reruns of dates (backfills), housekeeping.

The worker needs the `medallion` binary and its places in the environment: MEDALLION_PROJECT, MEDALLION_LANDING,
MEDALLION_LAKE, MEDALLION_CASSANDRA. Secrets (AWS_*, MEDALLION_CASSANDRA_PASSWORD) come from there too, or from a connection:
`MedallionOperator(..., env={"MEDALLION_CASSANDRA_PASSWORD": "{{ conn.cassandra.password }}"})`. Never from arguments.

Written for Airflow 3.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import DAG, BaseOperator, CronDataIntervalTimetable
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

BINARY = os.environ.get("MEDALLION_BIN", "medallion")

# 5: another run holds or changed the lake. 6: a store does not answer, a disk is full. Both heal by trying again later.
RETRIED = frozenset({5, 6})
# 2 usage, 3 project, 4 data, 70 a bug: trying again changes nothing, a person has to look.
MEANINGS = {
    2: "usage: the command line or environment is wrong",
    3: "project: TOML, SQL or CQL is wrong; `medallion check` names file and line",
    4: "data: a balance does not hold, a check failed or a landing file changed; see docs/operations.md",
    5: "conflict: another run holds or changed the lake",
    6: "unavailable: a store does not answer, or a disk is full",
    70: "a bug of medallion: report it",
}


class MedallionOperator(BaseOperator):
    """Runs `medallion ARGUMENTS...` without a shell, and lets the exit code decide what Airflow does next.

    :param arguments: command and options, templated
    :param env: variables added to the worker's environment, templated
    :param skip_on: exit codes that skip the task instead of failing it

    Exit code 0 returns the report of `run` and `rerun` in short; 5 and 6 raise, so that Airflow tries again; any other fails
    the task at once. A signal (the worker was stopped) is tried again: the next run continues.
    """

    template_fields: Sequence[str] = ("arguments", "env")

    def __init__(
        self,
        *,
        arguments: Sequence[str],
        env: Mapping[str, str] | None = None,
        skip_on: Collection[int] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.arguments = arguments
        self.env = env
        self.skip_on = skip_on
        self._process: subprocess.Popen | None = None

    def execute(self, context: Any) -> dict[str, Any] | None:
        command = [BINARY, "--quiet", "--format", "json", *self.arguments]
        self.log.info("starting: %s", " ".join(command))
        # standard output is one JSON document, standard error is the log
        with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **(self.env or {})},
                stdout=printed,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            for line in self._process.stderr:
                self.log.error("%s", line.rstrip())
            code = self._process.wait()
            printed.seek(0)
            text = printed.read()
        if code == 0:
            return summary(text)
        message = f"medallion ended with exit code {code}: {meaning(code)}"
        if code in self.skip_on:
            raise AirflowSkipException(message)
        # a negative code is a signal; 143 is what SIGTERM makes of it, 130 and 143 what a shell makes of one
        if code in RETRIED or code < 0 or code in (130, 143):
            raise AirflowException(message)
        raise AirflowFailException(message)

    def on_kill(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()


def meaning(code: int) -> str:
    return MEANINGS.get(code, "killed by a signal" if code < 0 else "not a code of medallion")


def summary(text: str) -> dict[str, Any] | None:
    """What a run did, small enough for XCom; nothing for commands that report something else."""
    try:
        report = json.loads(text)
    except json.JSONDecodeError:
        return None
    if isinstance(report, dict):
        report = report.get("report", report)
    if not isinstance(report, dict) or "run_id" not in report:
        return None
    return {key: report.get(key) for key in ("run_id", "new_files", "commits", "seconds", "warnings")}


DEFAULTS = {
    "retries": 4,
    "retry_delay": timedelta(minutes=2),
    # add who is told: "on_failure_callback" is called after the last try
}
COMMON = {
    "start_date": datetime(2025, 7, 1, tzinfo=timezone.utc),
    # a run takes in everything that waits: there is nothing to catch up
    "catchup": False,
    "max_active_runs": 1,
    "default_args": DEFAULTS,
    "tags": ["medallion"],
}

with DAG(
    "medallion_run",
    description="Move what has landed to gold (and Cassandra), then look whether a person has to",
    schedule="*/15 * * * *",
    **COMMON,
):
    run = MedallionOperator(task_id="run", arguments=["run"])
    monitor = MedallionOperator(task_id="monitor", arguments=["status", "--monitor"])
    run >> monitor

with DAG(
    "medallion_rerun",
    description="Compute one date again, and what depends on it; backfill a span of dates with it",
    # The day that has just ended. On a sound lake that changes nothing and commits nothing.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    **COMMON,
):
    MedallionOperator(task_id="rerun", arguments=["rerun", "--from", "{{ ds }}", "--to", "{{ ds }}"])

with DAG(
    "medallion_maintenance",
    description="Put small files together, delete old ones, look whether the lake is sound",
    schedule="10 3 * * *",
    **COMMON,
):
    optimize = MedallionOperator(task_id="optimize", arguments=["optimize"])
    vacuum = MedallionOperator(task_id="vacuum", arguments=["vacuum", "--older-than", "30d", "--delete"])
    doctor = MedallionOperator(task_id="doctor", arguments=["doctor"])
    # needs the lake's lock: skipped while a run or a stream has it
    gc = MedallionOperator(task_id="gc", arguments=["gc", "--keep-runs", "1000"], skip_on={5})
    optimize >> vacuum >> doctor >> gc
