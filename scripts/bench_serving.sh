#!/usr/bin/env bash
# Measures publishing: rows per second of client CPU, by `medallion publish --full` and by the official Python driver
# with the same rows, in turns on one Cassandra that is started for it.
#
# usage: scripts/bench_serving.sh [ROUNDS]      5 by default; the medians are printed
#   BENCH_DATA=DIR    landing data instead of ../shared/data/cloud_provider_analytics, or of generated data without it
#   MEDALLION=FILE    a binary to measure instead of building one
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5}
say() { printf 'bench: %s\n' "$*" >&2; }

MEDALLION=$(scripts/release_binary.sh)

venv=${XDG_CACHE_HOME:-$HOME/.cache}/medallion/cassandra-driver-venv
if ! "$venv/bin/python" -c 'import cassandra.cluster' 2>/dev/null; then
    say "installing cassandra-driver into $venv"
    python3 -m venv "$venv" || { say "needs venv: sudo apt-get install -y python3-venv"; exit 1; }
    "$venv/bin/pip" -q install cassandra-driver
fi

work=$(mktemp -d)
address=127.$((RANDOM % 200 + 20)).$((RANDOM % 250)).1
port=$((RANDOM % 10000 + 20000))
scripts/cassandra.sh start --dir "$work/cassandra" --address "$address" --port "$port" \
    --storage-port $((port + 1)) --heap 1g
trap 'scripts/cassandra.sh stop --dir "$work/cassandra"; rm -rf "$work"' EXIT

data=${BENCH_DATA:-../shared/data/cloud_provider_analytics}
if [ ! -d "$data" ]; then
    say "no $data: measuring with generated data"
    data=$work/landing
    "$MEDALLION" --quiet generate --events 300000 --days 92 --seed 1 --out "$data" >&2
fi
# exit code 4 means that the data needs a look; for this the rows that there are will do
"$MEDALLION" --quiet --landing "$data" --lake "$work/lake" run >&2 || [ $? = 4 ]
"$venv/bin/python" tests/bench/python_driver.py "$MEDALLION" . "$work/lake" "$address" "$port" \
    cloud_analytics "$rounds"
