"""Runs of medallion as Dagster assets, checks and jobs.

One command moves everything, so the zones are one step with an asset each: what was written to which table comes from the
JSON report. `rerun_date` is a job with a partition per date; a backfill of it computes dates again.

The code location's environment has the places (MEDALLION_PROJECT, MEDALLION_LANDING, MEDALLION_LAKE, MEDALLION_CASSANDRA)
and the secrets (AWS_*, MEDALLION_CASSANDRA_PASSWORD). Nothing secret is an argument.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import dagster as dg

ZONES = ("bronze", "silver", "gold")

# 5: another run holds or changed the lake. 6: a store does not answer, a disk is full. Both heal by trying again later.
RETRIED = {5, 6}
MAX_RETRIES = 4
PAUSE_SECONDS = 120


class Medallion(dg.ConfigurableResource):
    """The binary. Its places are environment variables."""

    binary: str = "medallion"

    def run(self, context: dg.OpExecutionContext, *arguments: str) -> dict | list | None:
        """Runs `medallion ARGUMENTS...`, judges its exit code and returns the JSON that it printed."""
        ended = self.start(context, *arguments)
        ended.judge(context)
        return ended.report

    def start(self, context: dg.OpExecutionContext, *arguments: str) -> "Ended":
        command = [self.binary, "--quiet", "--format", "json", *arguments]
        context.log.info("starting: " + " ".join(command))
        with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
            with subprocess.Popen(command, stdout=printed, stderr=subprocess.PIPE, text=True, errors="replace") as process:
                try:
                    lines = []
                    for line in process.stderr:
                        lines.append(line.rstrip())
                        context.log.error(line.rstrip())
                    code = process.wait()
                except BaseException:
                    # the step was cancelled; the next run continues where this one stops
                    process.terminate()
                    raise
            printed.seek(0)
            return Ended(code, lines, parsed(printed.read()))


@dataclass
class Ended:
    code: int
    lines: list[str]
    report: dict | list | None

    def judge(self, context: dg.OpExecutionContext) -> None:
        """Asks Dagster to try again after 5, 6 and a signal; fails the step at once after any other code but 0."""
        if self.code == 0:
            return
        why = f"medallion ended with exit code {self.code}"
        # 143 is what SIGTERM makes of it
        if self.code in RETRIED or self.code < 0 or self.code == 143:
            context.log.warning(f"{why}: trying again in {PAUSE_SECONDS} s")
            raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=PAUSE_SECONDS)
        metadata = {"log": "\n".join(self.lines[-20:]), "exit_code": self.code}
        raise dg.Failure(why, metadata=metadata, allow_retries=False)


def parsed(text: str) -> dict | list | None:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


@dg.multi_asset(
    specs=[
        dg.AssetSpec("bronze", description="Every record that can be typed, as often as it landed"),
        dg.AssetSpec("silver", deps=["bronze"], description="One row per key: clean, conformed, enriched"),
        dg.AssetSpec("gold", deps=["silver"], description="The marts"),
    ],
    check_specs=[
        dg.AssetCheckSpec("balance", asset="gold", description="Every landed record is accounted for"),
    ],
    group_name="medallion",
    can_subset=False,
)
def zones(context: dg.AssetExecutionContext, medallion: Medallion) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    ended = medallion.start(context, "run")
    # after 4 the tables are written and the report is complete: show both, then fail
    if ended.code not in (0, 4) or not ended.report:
        ended.judge(context)
    report = ended.report
    for zone in ZONES:
        rows = {step["table"]: step["rows"] for step in report["steps"] if step["table"].startswith(f"{zone}.")}
        yield dg.MaterializeResult(
            asset_key=zone,
            metadata={
                "run": report["run_id"],
                "new_files": report["new_files"],
                "rows_written": sum(rows.values()),
                "tables": dg.MetadataValue.json(rows),
                "warnings": dg.MetadataValue.json(report["warnings"]),
            },
        )
    off = [row for row in report["balance"] if Decimal(row["difference"]) != 0]
    yield dg.AssetCheckResult(
        check_name="balance", asset_key="gold", passed=not off, metadata={"differences": dg.MetadataValue.json(off)}
    )
    ended.judge(context)


@dg.op
def look(context: dg.OpExecutionContext, medallion: Medallion) -> None:
    """Fails where a person has to look: a run that was stopped, a missed `freshness`, a decision that waits."""
    medallion.run(context, "status", "--monitor")


@dg.job
def monitor() -> None:
    look()


@dg.op
def rerun(context: dg.OpExecutionContext, medallion: Medallion) -> None:
    """Computes one date again, and what depends on it."""
    date = context.partition_key
    done = medallion.run(context, "rerun", "--from", date, "--to", date)
    context.add_output_metadata({"commits": done["report"]["commits"], "seconds": done["report"]["seconds"]})


@dg.job(partitions_def=dg.DailyPartitionsDefinition(start_date="2025-07-01"))
def rerun_date() -> None:
    rerun()


@dg.op
def maintain(context: dg.OpExecutionContext, medallion: Medallion) -> None:
    """Puts small files together, deletes old ones, looks whether the lake is sound. Runs beside runs and streams."""
    medallion.run(context, "optimize")
    medallion.run(context, "vacuum", "--older-than", "30d", "--delete")
    medallion.run(context, "doctor")


@dg.job
def maintenance() -> None:
    maintain()


batch = dg.define_asset_job("batch", selection=["bronze", "silver", "gold"])

defs = dg.Definitions(
    assets=[zones],
    jobs=[batch, monitor, rerun_date, maintenance],
    schedules=[
        dg.ScheduleDefinition(job=batch, cron_schedule="*/15 * * * *"),
        dg.ScheduleDefinition(job=monitor, cron_schedule="7-57/10 * * * *"),
        dg.ScheduleDefinition(job=maintenance, cron_schedule="10 3 * * *"),
    ],
    resources={"medallion": Medallion(binary=os.environ.get("MEDALLION_BIN", "medallion"))},
)
