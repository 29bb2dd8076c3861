#!/usr/bin/env bash
# Measures the stream: sustained events per second from landing to committed silver, landing to gold in milliseconds,
# the flatness of commits, the restart after kill -9, and memory. Current-date events, files renamed into place.
#
# usage: scripts/bench_stream.sh
#   RATE=N           events per second of the latency part; 10000 by default
#   LATENCY_S=N      how long it lasts, in seconds; 60 by default
#   BURST=N          events of the throughput part, landed before the stream starts; 3000000 by default
#   KNOWN=N          events of the same date that the lake knows before; 0 by default
#   SUSTAINED=N      events per second of the long part; 100000 by default
#   SUSTAINED_S=N    how long it lasts, in seconds; 0 by default: none. 600 need about 25 GB of disk
#   BENCH_WORK=DIR   where to put landing and lake; a temporary folder by default
#   BATCHES=N        micro-batches of the part about commits; 2000 by default, 0 for none
#   SPARK=1          measure Spark Structured Streaming beside it, over the same burst
#   CASSANDRA=HOST   publish to this one too, and measure landing to Cassandra
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
rng, begun = random.Random(prefix), time.time()
# what follows the time of an event, drawn once: writing must not take the processor from what is measured
tails = ['"org_id":"org_%02d","resource_id":"res_%d","service":"%s","region":"us-east","metric":"%s","value":%d.5,"unit":null,'
         '"cost_usd_increment":%.4f,"schema_version":2,"carbon_kg":0.01}\n'
         % (rng.randrange(80), rng.randrange(400), services[at % 6], metrics[at % 3], rng.randrange(90), rng.random()) for at in range(20011)]
for number in range(0, events, per_file):
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    head, middle = '{"event_id":"%s_' % prefix, '","timestamp":"%s",' % stamp
    hidden = f"{folder}/.{prefix}_{number:010}"
    with open(hidden, "w") as out:
        out.write("".join([f"{head}{at}{middle}{tails[at % 20011]}" for at in range(number, min(number + per_file, events))]))
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

if [ -n "${SPARK:-}" ]; then
    # a release whose Java is that of the tests
    python=${XDG_CACHE_HOME:-$HOME/.cache}/medallion/spark-venv/bin/python
    [ -x "$python" ] || { python3 -m venv "${python%/bin/python}" && "${python%/python}/pip" -q install pyspark==4.3.0; }
    JAVA_HOME=$(dirname "$(dirname "$(readlink -f "$(scripts/cassandra.sh java)")")")
    export JAVA_HOME
    mkdir -p "$work/spark_landing"
    spark() { # FILES: takes them in beside those that it has
        ln "$work"/landing/usage_events_stream/$1 "$work/spark_landing/"
        "$python" scripts/spark_peer.py "$work/spark_landing" "$work/spark" 12 2>"$work/spark.log" >"$work/spark.out"
    }
    if [ "${KNOWN:-0}" -gt 0 ]; then
        say "Spark Structured Streaming takes in what is known"
        spark 'known_*.jsonl'
    fi
    say "the same burst in Spark Structured Streaming"
    spark 'burst_*.jsonl'
    python3 -c "
took, rows = open('$work/spark.out').read().split()
print(f'Spark: {int(rows) / float(took):.0f} events/s, {rows} rows in {took} s (its start not counted)')"
    rm -rf "$work/spark_landing" "$work/spark"
fi

say "latency: ${RATE:=10000} events/s for ${LATENCY_S:=60} s"
watcher=
if [ -n "${CASSANDRA:-}" ]; then
    export MEDALLION_CASSANDRA=$CASSANDRA
    "$MEDALLION" --quiet publish >/dev/null
    driver=${XDG_CACHE_HOME:-$HOME/.cache}/medallion/cassandra-driver-venv/bin/python
    "$driver" - "$CASSANDRA" >"$work/published" <<'PY' &
import json, sys, time
from cassandra.cluster import Cluster
session = Cluster([sys.argv[1]]).connect("cloud_analytics")
last = None
while True:
    row = session.execute("select state from medallion_published where mart = 'finops_daily_usage'").one()
    version = ((json.loads(row.state).get("published") or {}).get("gold") or {}).get("version") if row else None
    if version is not None and version != last:
        print(version, time.time(), flush=True)
        last = version
    time.sleep(0.02)
PY
    watcher=$!
fi
"$MEDALLION" stream >"$work/stream.out" 2>"$work/stream.log" &
stream=$!
# starting costs as much as the date is large, and is a number of its own: what landed meanwhile is not counted below
land warm $((RATE * 10)) $((RATE / 4)) "$RATE"
land live $((RATE * LATENCY_S)) $((RATE / 4)) "$RATE"
# the last ones are to be in gold before the process is killed
sleep 3
memory=$(awk '/VmRSS/ {print $2}' "/proc/$stream/status")
[ -z "$watcher" ] || { sleep 5; kill "$watcher"; unset MEDALLION_CASSANDRA; }
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
published = []
if os.path.exists(f"{work}/published"):
    published = [(int(version), float(time)) for version, time in (line.split() for line in open(f"{work}/published"))]
waits = {"silver": [], "gold": [], "cassandra": []}
warming = []
for version, paths, _ in bronze:
    in_silver = next(((v, t) for v, seen, t in silver if seen >= version), None)
    found = in_silver and next(((v, t) for v, seen, t in gold if seen >= in_silver[0]), None)
    in_gold = found and found[1]
    in_cassandra = found and next((t for v, t in published if v >= found[0]), None)
    for path in paths:
        if "/warm_" in path and in_gold:
            warming.append(in_gold - os.stat(f"{work}/landing/{path}").st_mtime)
        if "/live_" in path and in_gold:
            landed = os.stat(f"{work}/landing/{path}").st_mtime
            waits["silver"].append(in_silver[1] - landed)
            waits["gold"].append(in_gold - landed)
            if in_cassandra:
                waits["cassandra"].append(in_cassandra - landed)
def quantile(values, q): return sorted(values)[min(len(values) - 1, int(q * len(values)))] * 1000
for table, values in waits.items():
    if values:
        print(f"landing to {table}: p50 {quantile(values, .5):.0f} ms, p99 {quantile(values, .99):.0f} ms, {len(values)} files")
if warming:
    print(f"the first 10 s of the stream: landing to gold at most {max(warming) * 1000:.0f} ms")
print(f"memory after the live part: {memory / 1024:.0f} MiB")
PY

if [ "${SUSTAINED_S:=0}" -gt 0 ]; then
    say "sustained: ${SUSTAINED:=100000} events/s for $SUSTAINED_S s"
    "$MEDALLION" stream >"$work/stream.out" 2>"$work/stream.log" &
    stream=$!
    while sleep 5; do awk -v at="$(date +%s)" '/VmRSS/ {print at, $2}' "/proc/$stream/status" || break; done >"$work/memory_by_time" 2>/dev/null &
    land sustained $((SUSTAINED * SUSTAINED_S)) $((SUSTAINED / 2)) "$SUSTAINED"
    say "all has landed; what is left is taken in"
    wanted="sustained_$(printf '%010d' $((SUSTAINED * SUSTAINED_S - SUSTAINED / 2)))"
    until grep -qs "$wanted" $(ls "$work"/lake/bronze/usage_events/_delta_log/*.json | tail -n 20); do sleep 0.2; done
    kill -TERM "$stream"
    wait "$stream"
    python3 - "$work" <<'PY'
import glob, json, os, sys
work = sys.argv[1]
def entries(table):
    for path in sorted(glob.glob(f"{work}/lake/{table}/_delta_log/*.json")):
        actions = [json.loads(line) for line in open(path)]
        info = next((a["commitInfo"] for a in actions if "commitInfo" in a), {})
        txns = {a["txn"]["appId"]: a["txn"]["version"] for a in actions if "txn" in a}
        yield int(os.path.basename(path)[:20]), info, txns, os.stat(path).st_mtime
seen = [(txns["bronze.usage_events"], at) for _, _, txns, at in entries("silver/usage_events") if "bronze.usage_events" in txns]
waits = []
for version, info, _, _ in entries("bronze/usage_events"):
    in_silver = next((at for position, at in seen if position >= version), None)
    for file in (info.get("medallion") or {}).get("files") or []:
        if "/sustained_" in file["path"] and in_silver:
            landed = os.stat(f"{work}/landing/{file['path']}").st_mtime
            waits.append((landed, in_silver - landed))
waits.sort()
begun = waits[0][0]
minutes = {}
for landed, wait in waits:
    minutes.setdefault(int((landed - begun) / 60), []).append(wait)
memory = [tuple(map(int, line.split())) for line in open(f"{work}/memory_by_time") if len(line.split()) == 2]
for minute, of_it in sorted(minutes.items()):
    of_it.sort()
    resident = [kilobytes for at, kilobytes in memory if int((at - begun) / 60) == minute]
    print(f"minute {minute + 1}: landing to silver p50 {of_it[len(of_it) // 2]:.2f} s, largest {of_it[-1]:.2f} s; resident memory up to {max(resident, default=0) / 1024:.0f} MiB")
PY
fi

if [ "${BATCHES:=2000}" -gt 0 ]; then
    say "$BATCHES micro-batches of a file each"
    rm -rf "$work/many"
    mkdir -p "$work/many/landing/usage_events_stream"
    cp landing/*.csv "$work/many/landing/"
    cp -r medallion.toml sql cql "$work/many/"
    # one file each, whatever else the project says
    sed -i '/^batch_files/d; s/^\[stream\]$/[stream]\nbatch_files = 1/' "$work/many/medallion.toml"
    grep -q '^batch_files = 1' "$work/many/medallion.toml" || printf '\n[stream]\nbatch_files = 1\n' >>"$work/many/medallion.toml"
    work=$work/many land many $((BATCHES * 100)) 100 0
    "$MEDALLION" --project "$work/many" --landing "$work/many/landing" --lake "$work/many/lake" -v stream --until-idle \
        >"$work/many/out" 2>"$work/many/log"
    python3 - "$work/many/log" <<'PY'
import re, statistics, sys
times = [int(found.group(1)) for found in re.finditer(r"micro-batch in bronze.*?ms=(\d+)", re.sub(r"\x1b\[[0-9;]*m", "", open(sys.argv[1]).read()))]
first, last = statistics.median(times[:100]), statistics.median(times[-100:])
print(f"{len(times)} micro-batches, landing to committed bronze: p50 of the first 100 {first:.0f} ms, of the last 100 {last:.0f} ms, ratio {last / max(first, 1):.2f}")
PY
fi
