#!/usr/bin/env bash
# Measures the stream: sustained events per second from landing to committed silver, landing to gold in milliseconds,
# the flatness of commits, the restart after kill -9, and memory. Current-date events, files renamed into place.
#
# usage: scripts/bench_stream.sh
#   RATE=N           events per second of the latency part; 10000 by default
#   LATENCY_S=N      how long it lasts, in seconds; 60 by default
#   BURST=N          events of the throughput part, landed before the stream starts; 3000000 by default
#   KNOWN=N          events of the same date that the lake knows before; 0 by default
#   BENCH_WORK=DIR   where to put landing and lake; a temporary folder by default
#   MEDALLION=FILE   a binary to measure instead of building one
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf 'bench: %s\n' "$*" >&2; }
MEDALLION=$(scripts/release_binary.sh)
work=${BENCH_WORK:-}
if [ -z "$work" ]; then
    work=$(mktemp -d)
    trap 'kill -KILL "${stream:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
fi
export MEDALLION_LANDING=$work/landing MEDALLION_LAKE=$work/lake
rm -rf "$work/landing" "$work/lake"
mkdir -p "$work/landing/usage_events_stream"
cp landing/*.csv "$work/landing/"

land() { # PREFIX EVENTS PER_FILE RATE: writes files of current events; RATE 0 is as fast as possible
    python3 - "$work/landing/usage_events_stream" "$@" <<'PY'
import os, random, sys, time
folder, prefix, events, per_file, rate = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
services, metrics = ["compute", "storage", "database", "networking", "analytics", "genai"], ["requests", "cpu_hours", "storage_gb_hours"]
rng, begun, done = random.Random(prefix), time.time(), 0
for number in range(0, events, per_file):
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    lines = []
    for at in range(number, min(number + per_file, events)):
        lines.append('{"event_id":"%s_%d","timestamp":"%s","org_id":"org_%02d","resource_id":"res_%d","service":"%s","region":"us-east",'
                     '"metric":"%s","value":%d.5,"unit":null,"cost_usd_increment":%.4f,"schema_version":2,"carbon_kg":0.01}'
                     % (prefix, at, stamp, rng.randrange(80), rng.randrange(400), services[at % 6], metrics[at % 3], rng.randrange(90), rng.random()))
    hidden = f"{folder}/.{prefix}_{number:010}"
    with open(hidden, "w") as out:
        out.write("\n".join(lines) + "\n")
    os.rename(hidden, f"{folder}/{prefix}_{number:010}.jsonl")
    if rate:
        time.sleep(max(0, begun + (number + per_file) / rate - time.time()))
PY
}

events_in() { # TABLE
    "$MEDALLION" --quiet --format csv sql "select count(*) from $1" | tail -n 1
}

if [ "${KNOWN:-0}" -gt 0 ]; then
    say "a lake that knows $KNOWN events of today"
    land known "$KNOWN" 50000 0
    "$MEDALLION" --quiet run >/dev/null
fi

say "throughput: ${BURST:=3000000} events wait"
land burst "$BURST" 20000 0
begun=$(date +%s.%N)
/usr/bin/time -f '%M' -o "$work/memory" "$MEDALLION" --quiet stream --until-idle >"$work/burst.out"
ended=$(date +%s.%N)
python3 -c "print(f'throughput: {$BURST / ($ended - $begun):.0f} events/s, settled; peak memory {int(open(\"$work/memory\").read()) / 1024:.0f} MiB')"
tail -n 2 "$work/burst.out"

say "latency: ${RATE:=10000} events/s for ${LATENCY_S:=60} s"
"$MEDALLION" stream >"$work/stream.out" 2>"$work/stream.log" &
stream=$!
land live $((RATE * LATENCY_S)) $((RATE / 4)) "$RATE"
memory=$(awk '/VmRSS/ {print $2}' "/proc/$stream/status")
say "kill -9 and restart"
kill -KILL "$stream"
wait "$stream" 2>/dev/null || true
before=$(events_in bronze.usage_events)
begun=$(date +%s.%N)
"$MEDALLION" stream >"$work/stream.out" 2>"$work/stream.log" &
stream=$!
land restart 1000 1000 0
while [ "$(events_in bronze.usage_events)" -le "$before" ]; do sleep 0.05; done
ended=$(date +%s.%N)
python3 -c "print(f'restart: processing again after {$ended - $begun:.2f} s (a query to see it included)')"
kill -TERM "$stream"
wait "$stream"
tail -n 2 "$work/stream.out"

# everything about latency and commits stands in the logs: which files a version of gold reflects, and when
python3 - "$work" "$memory" <<'PY'
import glob, json, os, sys
work, memory = sys.argv[1], int(sys.argv[2])
def entries(table):
    for path in sorted(glob.glob(f"{work}/lake/{table}/_delta_log/*.json")):
        info, txns = {}, {}
        for line in open(path):
            action = json.loads(line)
            if "commitInfo" in action: info = action["commitInfo"]
            if "txn" in action: txns[action["txn"]["appId"]] = action["txn"]["version"]
        yield int(os.path.basename(path)[:20]), info, txns, os.stat(path).st_mtime
bronze = [(version, [f["path"] for f in ((info.get("medallion") or {}).get("files") or [])], mtime) for version, info, _, mtime in entries("bronze/usage_events")]
def positions(table, source):
    return [(version, txns[source], mtime) for version, _, txns, mtime in entries(table) if source in txns]
silver = positions("silver/usage_events", "bronze.usage_events")
gold = positions("gold/finops_daily_usage", "silver.usage_events")
waits = {"silver": [], "gold": []}
for version, paths, _ in bronze:
    in_silver = next(((v, t) for v, seen, t in silver if seen >= version), None)
    in_gold = in_silver and next((t for _, seen, t in gold if seen >= in_silver[0]), None)
    for path in paths:
        if "/live_" in path and in_gold:
            landed = os.stat(f"{work}/landing/{path}").st_mtime
            waits["silver"].append(in_silver[1] - landed)
            waits["gold"].append(in_gold - landed)
def quantile(values, q): return sorted(values)[min(len(values) - 1, int(q * len(values)))] * 1000
for table, values in waits.items():
    if values:
        print(f"landing to {table}: p50 {quantile(values, .5):.0f} ms, p99 {quantile(values, .99):.0f} ms, {len(values)} files")
times = [mtime for _, paths, mtime in bronze if any("/live_" in path for path in paths)]
gaps = [b - a for a, b in zip(times, times[1:])]
if len(gaps) > 20:
    n = min(100, len(gaps) // 2)
    print(f"bronze commits: {len(times)}; time between them p50 of the first {n}: {quantile(gaps[:n], .5):.0f} ms, of the last {n}: {quantile(gaps[-n:], .5):.0f} ms")
print(f"memory after the live part: {memory / 1024:.0f} MiB")
PY
