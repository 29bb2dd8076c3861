#!/usr/bin/env bash
# Measures the four rows of docs/performance.md and prints them as a table: wall clock, CPU time and peak memory of the
# whole process, ours and a by-hand DuckDB pipeline's that does about the same work, in turns, with ratios.
#
# usage: scripts/bench.sh [RUNS]        RUNS is 5 by default; the medians are printed
#   BENCH_DATA=DIR    landing data instead of ../shared/data/cloud_provider_analytics
#   BENCH_PEER=DIR    the folder with multiply.py and duckdb_pipeline.py instead of ../shared/bench
#   BENCH_FACTOR=N    how many times larger the large landing is; 50 by default
#   BENCH_WORK=DIR    where to put landing and lakes (8 GB); a temporary folder by default
#   MEDALLION=FILE    a binary to measure instead of building one
#
# Without the real data and the peer it measures ours alone, on generated data of the same size.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-5}
data=${BENCH_DATA:-../shared/data/cloud_provider_analytics}
peer=${BENCH_PEER:-../shared/bench}
factor=${BENCH_FACTOR:-50}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/medallion
say() { printf 'bench: %s\n' "$*" >&2; }

[ -x /usr/bin/time ] || { say "needs GNU time: sudo apt-get install -y time"; exit 1; }
MEDALLION=$(scripts/release_binary.sh)

work=${BENCH_WORK:-}
if [ -z "$work" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"
results=$work/results.tsv
: >"$results"

# --- data, and the peer where there is one

python=python3
has_peer=no
if [ -d "$data" ] && [ -f "$peer/multiply.py" ] && [ -f "$peer/duckdb_pipeline.py" ]; then
    has_peer=yes
    python=$cache/bench-venv/bin/python
    if ! "$python" -c 'import duckdb' 2>/dev/null; then
        say "installing duckdb for the peer into $cache/bench-venv"
        python3 -m venv "$cache/bench-venv" || { say "needs venv: sudo apt-get install -y python3-venv"; exit 1; }
        "$cache/bench-venv/bin/pip" -q install duckdb
    fi
    small=$data
    large=$work/landing_large
    if [ ! -d "$large" ]; then
        say "making the landing $factor times larger"
        "$python" "$peer/multiply.py" "$data" "$large.part" "$factor" >&2
        mv "$large.part" "$large"
    fi
else
    say "there is no ../shared with the real data and the peer: measuring ours alone, on generated data"
    small=$work/landing_small
    large=$work/landing_large
    [ -d "$small" ] || "$MEDALLION" generate --events 43200 --days 60 --dirty 0.5 --seed 1 --out "$small"
    [ -d "$large" ] || "$MEDALLION" generate --events $((43200 * factor)) --days 60 --dirty 0.5 --seed 1 --out "$large"
fi

# --- measuring

measure() { # ROW WHO COMMAND…: appends wall, cpu and peak memory to the results
    local row=$1 who=$2
    shift 2
    if ! /usr/bin/time -f '%e %U %S %M' -o "$work/time" "$@" >"$work/out" 2>"$work/err"; then
        say "$row, $who failed: $*"
        tail -n 5 "$work/err" >&2
        exit 1
    fi
    # time writes a line of its own where a command fails; the numbers are the last line
    tail -n 1 "$work/time" | awk -v row="$row" -v who="$who" '{ printf "%s\t%s\t%s\t%.2f\t%.1f\n", row, who, $1, $2 + $3, $4 / 1024 }' >>"$results"
}
both() { # ROW LANDING LAKE: first runs, ours and the peer's in turns
    local row=$1 landing=$2 lake=$3
    rm -rf "$lake".*
    for ((i = 1; i <= runs; i++)); do
        say "$row: $i of $runs"
        # a new folder each time: for seconds after many files were removed, ext4 searches long for a free inode
        measure "$row" ours "$MEDALLION" -q --landing "$landing" --lake "$lake.$i" run
        [ $has_peer = no ] || {
            measure "$row" peer "$python" "$peer/duckdb_pipeline.py" "$landing" "$work/peer" "$(nproc)"
            tail -n 1 "$work/out" >"$work/peer_said"
        }
    done
    rm -rf "$lake"
    mv "$lake.$runs" "$lake"
    # equal work is part of the measurement: events and cost must agree
    say "$row: ours $("$MEDALLION" --format csv --landing "$landing" --lake "$lake" sql \
        'select count(*) as groups, sum(total_cost_usd) as cost, sum(event_count) as events from gold.finops_daily_usage' | tail -n 1)"
    [ $has_peer = no ] || say "$row: peer $(cat "$work/peer_said")"
}

new_file() { # NUMBER: 1,000 new events of the latest date
    python3 - "$small" "$large" "$1" <<'PY'
import json, os, sys
small, large, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
found = []
for folder, _, names in os.walk(small):
    for name in names:
        if name.endswith(".jsonl"):
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    try:
                        event = json.loads(line)
                        found.append((event["timestamp"][:10], os.path.relpath(folder, small), event))
                    except (ValueError, KeyError, TypeError):
                        pass
# generated data holds a few broken dates; the latest one that has company is meant
dates = sorted(date for date, _, _ in found)
latest = dates[-50]
events = [(folder, event) for date, folder, event in found if date == latest]
folder = os.path.join(large, events[0][0])
path = os.path.join(folder, f"bench_{os.getpid()}_{number:04d}.jsonl")
with open(path + ".tmp", "w", encoding="utf-8") as out:
    for i in range(1000):
        event = dict(events[i % len(events)][1], event_id=f"evt_bench_{os.getpid()}_{number}_{i}")
        out.write(json.dumps(event) + "\n")
os.rename(path + ".tmp", path)
PY
}

both "real data" "$small" "$work/lake_small"
both "x $factor" "$large" "$work/lake_large"
for ((i = 1; i <= runs; i++)); do
    measure "no new files" ours "$MEDALLION" -q --landing "$large" --lake "$work/lake_large" run
done
for ((i = 1; i <= runs; i++)); do
    new_file "$i"
    measure "one new file" ours "$MEDALLION" -q --landing "$large" --lake "$work/lake_large" run
done
rm -f "$large"/*/bench_*.jsonl

# --- the table

python3 - "$results" "$factor" "$runs" <<'PY'
import os, platform, statistics, sys
rows = {}
for line in open(sys.argv[1], encoding="utf-8"):
    row, who, *numbers = line.rstrip("\n").split("\t")
    rows.setdefault(row, {}).setdefault(who, []).append([float(number) for number in numbers])
large = f"x {sys.argv[2]}"
required = {
    "real data": "0.7 s, 200 MB", large: "12 s, 1,500 MB", "no new files": "0.25 s",
    "one new file": f"10 % of `{large}`",
}
def text(numbers):
    wall, cpu, peak = (statistics.median(column) for column in zip(*numbers))
    return wall, peak, f"{wall:.2f} s ({min(n[0] for n in numbers):.2f}), {cpu:.1f} s cpu, {peak:,.0f} MB"
print(f"\nmedians of {sys.argv[3]} runs, the fastest in brackets; {os.cpu_count()} cores, {platform.machine()}\n")
print("| work | medallion | by-hand DuckDB | medallion / DuckDB: time, memory | required |")
print("|---|---|---|---|---|")
for row, who in rows.items():
    wall, peak, mine = text(who["ours"])
    theirs, ratio = "–", "–"
    if "peer" in who:
        peer_wall, peer_peak, theirs = text(who["peer"])
        ratio = f"{wall / peer_wall:.2f}, {peak / peer_peak:.2f}"
    if row == "one new file":
        full = statistics.median(n[0] for n in rows[large]["ours"])
        ratio = f"{wall / full:.1%} of the full run"
    print(f"| {row} | {mine} | {theirs} | {ratio} | {required[row]} |")
PY
