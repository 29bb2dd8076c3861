#!/usr/bin/env bash
# Measures what operators wait for: one date of 60 computed again, beside the full run; the status of a lake with 10,000
# commits; the lines behind one row of each mart.
#
# usage: scripts/bench_operators.sh [RUNS]       RUNS is 5 by default; medians are printed
#   BENCH_LARGE=DIR  a landing 50 times the real data, as scripts/bench.sh makes it; generated data of that size by default
#   COMMITS=N        of the lake whose status is asked; 10000 by default
#   BENCH_WORK=DIR   where to put landing and lakes (4 GB); a temporary folder by default
#   MEDALLION=FILE   a binary to measure instead of building one
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-5}
say() { printf 'bench: %s\n' "$*" >&2; }
[ -x /usr/bin/time ] || { say "needs GNU time: sudo apt-get install -y time"; exit 1; }
MEDALLION=$(scripts/release_binary.sh)
work=${BENCH_WORK:-}
if [ -z "$work" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"
large=${BENCH_LARGE:-}
if [ -z "$large" ]; then
    large=$work/landing_large
    [ -d "$large" ] || "$MEDALLION" generate --events 2160000 --days 60 --dirty 0.5 --seed 1 --out "$large"
fi

measure() { # NAME COMMAND…: appends wall and CPU seconds to the results of NAME
    local name=$1
    shift
    if ! /usr/bin/time -f '%e %U %S' -o "$work/time" "$@" >"$work/out" 2>"$work/err"; then
        say "$name failed: $*"
        tail -n 5 "$work/err" >&2
        exit 1
    fi
    tail -n 1 "$work/time" | awk '{ printf "%.2f %.2f\n", $1, $2 + $3 }' >>"$work/results.$name"
}
median() { # NAME COLUMN
    sort -n -k "$2,$2" "$work/results.$1" | awk -v column="$2" '{ value[NR] = $column } END { print value[int((NR + 1) / 2)] }'
}
row() { # WHAT NAME
    printf '%-52s %8s s wall %8s s CPU\n' "$1" "$(median "$2" 1)" "$(median "$2" 2)"
}
rm -f "$work"/results.*

# --- one date of 60

lake=$work/lake
m() { "$MEDALLION" --quiet --landing "$large" --lake "$lake" "$@"; }
timed() { # NAME ARGUMENTS…
    local name=$1
    shift
    measure "$name" "$MEDALLION" --quiet --landing "$large" --lake "$lake" "$@"
}
rm -rf "$lake"
say "the full run"
timed full run
dates=$(m --format csv sql "select distinct usage_date from gold.finops_daily_usage order by 1" | tail -n +2 | awk 'NR % 10 == 5')
for date in $(printf '%s\n' $dates | head -n "$runs"); do
    say "rerun of $date"
    timed rerun rerun --from "$date" --to "$date"
    timed baselines rerun --from "$date" --to "$date" --select silver.cost_baselines --only
    timed plan rerun --from "$date" --to "$date" --dry-run
done

# --- the lines behind a row

first() { m --format csv sql "$1" | tail -n 1; }
explain() { # MART COLUMN COLUMN…: the row with the largest key of the middle date
    local mart=$1 key values
    shift
    values=$(first "select $(IFS=,; echo "$*") from $mart order by $(IFS=,; echo "$*") desc limit 1 offset 100")
    key=$(paste -d= <(printf '%s\n' "$@") <(tr ',' '\n' <<<"$values"))
    for ((i = 1; i <= runs; i++)); do
        # shellcheck disable=SC2086 # one argument per column
        timed "explain.$mart" explain-row "$mart" $key
    done
}
say "the lines behind a row"
explain gold.finops_daily_usage org_id usage_date service
explain gold.org_service_cost_summary org_id summary_date service
explain gold.cost_anomaly org_id usage_date service
explain gold.org_profile org_id
explain gold.revenue_monthly org_id billing_month

# --- status after many commits

project=$work/project
rm -rf "$project" "$work/small"
mkdir -p "$project" "$work/small/landing/usage_events_stream"
cp -r medallion.toml sql cql "$project/"
sed -i -e 's/^batch_files = .*/batch_files = 1/' -e 's/^poll = .*/poll = "1 millisecond"/' \
    -e 's/^refresh = .*/refresh = "1 millisecond"/' -e 's/^settle = .*/settle = "20 seconds"/' "$project/medallion.toml"
cp landing/*.csv "$work/small/landing/"
small() { "$MEDALLION" --quiet --project "$project" --landing "$work/small/landing" --lake "$work/small/lake" "$@"; }
commits() { find "$work/small/lake" -path '*/_delta_log/*.json' 2>/dev/null | wc -l; }
part=0
while [ "$(commits)" -lt "${COMMITS:=10000}" ]; do
    say "$(commits) of $COMMITS commits"
    python3 - "$work/small/landing/usage_events_stream" "$part" <<'PY'
import os, sys
folder, part = sys.argv[1], int(sys.argv[2])
for at in range(200):
    event = ('{"event_id":"%d_%d","timestamp":"2025-08-31T%02d:00:00Z","org_id":"org_1","resource_id":"res_1","service":"compute",'
             '"region":"us-east","metric":"requests","value":1,"unit":null,"cost_usd_increment":0.5,"schema_version":2}\n' % (part, at, at % 24))
    hidden = f"{folder}/.{part}_{at}"
    with open(hidden, "w") as out:
        out.write(event)
    os.rename(hidden, f"{folder}/{part:05}_{at:05}.jsonl")
PY
    small stream --until-idle >/dev/null
    part=$((part + 1))
done
commits=$(commits)
for ((i = 1; i <= runs; i++)); do
    measure status "$MEDALLION" --quiet --project "$project" --landing "$work/small/landing" --lake "$work/small/lake" status
done

row "full run" full
row "one date of 60 again" rerun
row "  its baseline window alone, with opening and planning" baselines
row "  opening and planning alone" plan
full=$(median full 2) rerun=$(median rerun 2) baselines=$(median baselines 2) plan=$(median plan 2)
awk -v full="$full" -v rerun="$rerun" -v baselines="$baselines" -v plan="$plan" 'BEGIN {
    printf "one date without its baseline window: %.1f %% of the full run'"'"'s CPU time (at most 5 %% wanted)\n",
        100 * (rerun - (baselines - plan)) / full }'
row "status with $commits commits (at most 0.3 s wanted)" status
for results in "$work"/results.explain.*; do
    name=${results##*/results.}
    row "explain-row ${name#explain.} (at most 2 s wanted)" "$name"
done
