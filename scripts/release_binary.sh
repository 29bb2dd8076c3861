#!/usr/bin/env bash
# Builds the release binary and prints where it is, for benches. MEDALLION=FILE is taken as it is instead.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${MEDALLION:-}" ]; then
    cargo build --release --locked >&2
    target=$(cargo metadata --format-version 1 --no-deps --locked | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
    MEDALLION=$target/release/medallion
fi
printf '%s\n' "$MEDALLION"
