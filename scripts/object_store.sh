#!/usr/bin/env bash
# A server that speaks S3's protocol, for tests: moto, in a Python environment of its own in the cache folder. It keeps
# everything in memory.
#
# usage: scripts/object_store.sh install | installed | run PORT
#   run   in the foreground, prints `ready` when it answers; it ends with its standard input, so a test that is killed
#         leaves nothing behind
set -euo pipefail

readonly VERSION=5.2.5
readonly VENV="${XDG_CACHE_HOME:-$HOME/.cache}/medallion/moto-$VERSION"

say() { printf 'object store: %s\n' "$*" >&2; }

installed() { [ -e "$VENV/complete" ]; }

install() {
    installed && return
    say "installing moto $VERSION into $VENV"
    rm -rf "$VENV"
    python3 -m venv "$VENV" || { say "needs venv: sudo apt-get install -y python3-venv"; exit 1; }
    "$VENV/bin/pip" -q --disable-pip-version-check install "moto[server,s3]==$VERSION"
    touch "$VENV/complete"
}

run() { # PORT
    installed || { say "moto is not installed: run \`scripts/setup.sh --services\`"; exit 1; }
    "$VENV/bin/moto_server" -H 127.0.0.1 -p "$1" >/dev/null 2>&1 &
    server=$!
    trap 'kill "$server" 2>/dev/null || true' EXIT
    for _ in $(seq 600); do
        kill -0 "$server" 2>/dev/null || { say "moto ended at once; is port $1 taken?"; exit 1; }
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
            echo ready
            cat >/dev/null
            exit 0
        fi
        sleep 0.1
    done
    say "moto did not answer on port $1 within a minute"
    exit 1
}

case ${1:-} in
install | installed) "$1" ;;
run) run "${2:?the port}" ;;
*) say "unknown command \`${1:-}\`; known are install, installed, run PORT"; exit 2 ;;
esac
