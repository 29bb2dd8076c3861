"""Compares a lake with the oracle, table by table and row by row.

usage: compare.py ORACLE_OUT MEDALLION [MEDALLION ARGS ...]

Runs `MEDALLION ARGS --format json sql "select ..."` for every table that `oracle.py` wrote to ORACLE_OUT. Decimals,
texts, dates, counts, lists and maps must be equal; doubles to a relative 1e-9. Prints each difference, exits 1 where
there is one.
"""
import json, os, re, subprocess, sys
from decimal import Decimal

DECIMAL = re.compile(r"^-?\d+\.\d{6}$")
DOUBLES = {"anomaly_score", "mad_score", "max_anomaly_score"}
KEYS = {
    "silver.usage_events": ["event_id", "date"],
    "silver.customers_orgs": ["org_id"],
    "silver.users": ["user_id"],
    "silver.resources": ["resource_id"],
    "silver.billing_monthly": ["invoice_id"],
    "silver.support_tickets": ["ticket_id"],
    "silver.marketing_touches": ["touch_id"],
    "silver.nps_surveys": ["org_id", "survey_date"],
    "silver.customers_orgs_history": ["org_id", "valid_from", "valid_to"],
    "silver.users_history": ["user_id", "valid_from", "valid_to"],
    "silver.resources_history": ["resource_id", "valid_from", "valid_to"],
    "gold.finops_daily_usage": ["org_id", "usage_date", "service"],
    "gold.org_service_cost_summary": ["org_id", "summary_date", "service"],
    "gold.support_tickets_summary": ["org_id", "ticket_date", "severity"],
    "gold.revenue_monthly": ["org_id", "billing_month"],
    "gold.genai_usage_daily": ["org_id", "usage_date"],
    "gold.cost_anomaly": ["org_id", "usage_date", "service"],
    "gold.carbon_daily": ["org_id", "usage_date"],
    "gold.org_profile": ["org_id"],
    "gold.tickets_by_severity_daily": ["severity", "ticket_date"],
    "quarantine": ["source", "source_file", "source_line", "error_type"],
}


def plain(value):
    """One form for what both sides may write differently: decimals, and times with or without a fraction."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, str) and DECIMAL.match(value):
        return Decimal(value)
    if isinstance(value, str) and re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$", value):
        return value[:-1].rstrip("0").rstrip(".") if "." in value else value[:-1]
    return value


def equal(name, ours, theirs):
    if name in DOUBLES and ours is not None and theirs is not None:
        a, b = float(ours), float(theirs)
        return abs(a - b) <= 1e-9 * max(abs(a), abs(b), 1e-9)
    return ours == theirs and isinstance(ours, bool) == isinstance(theirs, bool)


def rows_of_oracle(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line, parse_float=Decimal) for line in lines]


def rows_of_lake(command, query):
    done = subprocess.run(command + ["--format", "json", "sql", query], capture_output=True)
    if done.returncode:
        sys.exit(f"{query}: {done.stderr.decode()}")
    return json.loads(done.stdout, parse_float=Decimal)


def compare(table, keys, ours, theirs):
    def index(rows):
        found = {}
        for row in rows:
            row = {name: plain(value) for name, value in row.items()}
            key = tuple(str(row[name]) for name in keys)
            found.setdefault(key, []).append(row)
        return found

    ours, theirs = index(ours), index(theirs)
    differences = 0

    def tell(text):
        nonlocal differences
        differences += 1
        if differences <= 5:
            print(f"{table}: {text}")

    for key in sorted(theirs.keys() - ours.keys()):
        tell(f"missing {key}")
    for key in sorted(ours.keys() - theirs.keys()):
        tell(f"extra {key}")
    for key in sorted(ours.keys() & theirs.keys()):
        if len(ours[key]) != len(theirs[key]):
            tell(f"{key} stands {len(ours[key])} times, not {len(theirs[key])}")
        for name, expected in theirs[key][0].items():
            if not equal(name, ours[key][0].get(name), expected):
                tell(f"{key} {name} = {ours[key][0].get(name)!r}, not {expected!r}")
    return differences


def main():
    out, command = sys.argv[1], sys.argv[2:]
    total = 0
    for table, keys in KEYS.items():
        theirs = rows_of_oracle(os.path.join(out, f"{table}.jsonl"))
        if table == "quarantine":
            sources = sorted({row["source"] for row in theirs}) or ["usage_events"]
            ours = []
            for source in sources:
                columns = "source, source_file, source_line, error_type"
                ours += rows_of_lake(command, f"select {columns} from quarantine.{source}")
        else:
            ours = rows_of_lake(command, f"select * from {table}")
        differences = compare(table, keys, ours, theirs)
        print(f"{table}: {len(theirs)} rows, {differences} differences")
        total += differences
    with open(os.path.join(out, "balance.json"), encoding="utf-8") as file:
        expected = json.load(file)
    done = subprocess.run(command + ["--format", "json", "balance"], capture_output=True)
    found = {(row["source"], row["measure"]): row for row in json.loads(done.stdout) if row["scope"] == "lake"}
    for source, sides in expected.items():
        measures = {"records": sides, **sides.get("money", {})}
        for measure, amounts in measures.items():
            for side in ("landed", "accepted", "duplicates", "superseded", "quarantined"):
                ours = found.get((source, measure), {}).get(side, "0")
                if Decimal(ours) != Decimal(str(amounts[side])):
                    total += 1
                    print(f"balance: {source} {measure} {side} = {ours}, not {amounts[side]}")
    print(f"{total} differences")
    sys.exit(1 if total else 0)


if __name__ == "__main__":
    main()
