#!/usr/bin/env bash
# A generator lands files at a rate, `medallion stream` follows them, the questions are answered again and again.
#
# usage: scripts/demo.sh           ends on Ctrl-C, or when SECONDS_TO_RUN have passed
#   RATE=N              events per second; 2000 by default
#   SECONDS_TO_RUN=N    30 by default; 0 is until Ctrl-C
#   MEDALLION=FILE      the binary; `medallion` by default
set -euo pipefail
cd "$(dirname "$0")/.."
medallion=${MEDALLION:-medallion}
rate=${RATE:-2000}
seconds=${SECONDS_TO_RUN:-30}

work=$(mktemp -d)
mkdir "$work/landing"
export MEDALLION_LANDING=$work/landing MEDALLION_LAKE=$work/lake
stream=''
end() {
    trap - EXIT INT TERM
    if [ -n "$stream" ]; then
        # one signal: the stream finishes what it has begun, and settles
        kill -TERM "$stream" 2>/dev/null || true
        wait "$stream" || true
        echo; tail -n 4 "$work/stream.out"
    fi
    rm -rf "$work"
}
trap end EXIT
trap 'exit 130' INT TERM

# a piece per second, `rate` events each
pieces=$((seconds > 0 ? seconds : 120))
"$medallion" --quiet generate --events $((rate * pieces)) --days 3 --dirty 0.5 --seed 7 --out "$work/generated" >/dev/null
(cd "$work/generated" && find . -type f ! -name '*.jsonl' | while read -r file; do
    mkdir -p "$work/landing/$(dirname "$file")"; mv "$file" "$work/landing/$file"; done)
find "$work/generated" -name '*.jsonl' | sort | xargs cat |
    (mkdir -p "$work/landing/usage_events_stream" "$work/pieces" && split -l "$rate" -d -a 5 --additional-suffix=.jsonl - "$work/pieces/events_")

"$medallion" stream >"$work/stream.out" 2>"$work/stream.log" &
stream=$!
begun=$SECONDS
for piece in "$work"/pieces/*.jsonl; do
    [ "$seconds" -eq 0 ] || [ $((SECONDS - begun)) -lt "$seconds" ] || break
    # a rename on the same disk: the file appears whole
    mv "$piece" "$work/landing/usage_events_stream/"
    sleep 1
    [ ! -t 1 ] || printf '\033[H\033[2J'
    grep -v 'medallion stream' "$work/stream.log" | tail -n 1 || true
    "$medallion" --quiet sql "select count(*) as events, max(timestamp) as newest, count(*) filter (where is_anomaly) as anomalies, count(*) filter (where is_late) as late from silver.usage_events" 2>/dev/null || true
    "$medallion" --quiet query daily_cost 2>/dev/null | head -n 6 || true
    "$medallion" --quiet query top_services 2>/dev/null | head -n 6 || true
    "$medallion" --quiet query critical_tickets 2>/dev/null | head -n 5 || true
    "$medallion" --quiet query monthly_revenue 2>/dev/null | head -n 5 || true
    "$medallion" --quiet query genai_daily 2>/dev/null | head -n 5 || true
done
