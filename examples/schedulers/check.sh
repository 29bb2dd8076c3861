#!/usr/bin/env bash
# check.sh [systemd|cron|airflow|dagster|kubernetes]...: validates the examples of this folder, all of them by default.
#
# Each with its own tool, and with the `medallion` binary where something can be run. Python packages are installed once, into
# ${XDG_CACHE_HOME:-~/.cache}/medallion/schedulers. A missing tool is a failure, never skipped.
#
# MEDALLION_BIN      the binary; else that of target/release, target/debug, or the PATH
# MEDALLION_PROJECT  the project that is run, with something in its landing; else this repository
set -euo pipefail

AIRFLOW=apache-airflow==3.3.2
DAGSTER=dagster==1.13.29
KUBERNETES_VALIDATE=kubernetes-validate==1.37.0
KUBERNETES=1.37

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/medallion/schedulers
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

say() { printf '%s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
need() { # need COMMAND HOW
    command -v "$1" >/dev/null || fail "\`$1\` is missing: $2"
}

# Sets MEDALLION_BIN and MEDALLION_PROJECT.
need_binary() {
    local candidate
    if [ -z "${MEDALLION_BIN:-}" ]; then
        for candidate in "${CARGO_TARGET_DIR:-$root/target}"/{release,debug}/medallion "$(command -v medallion || true)"; do
            [ -x "$candidate" ] && MEDALLION_BIN=$candidate && break
        done
    fi
    [ -x "${MEDALLION_BIN:-}" ] || fail "no \`medallion\` binary: run \`make build\`, or name one in MEDALLION_BIN"
    MEDALLION_BIN=$(realpath "$MEDALLION_BIN")
    MEDALLION_PROJECT=${MEDALLION_PROJECT:-$root}
    export MEDALLION_BIN MEDALLION_PROJECT
    # what the caller has set must not decide where the tests write
    unset MEDALLION_LANDING MEDALLION_CASSANDRA MEDALLION_FORMAT MEDALLION_METRICS
}

# venv NAME SPEC: sets `python` to that of an environment that holds exactly this package.
venv() {
    local folder=$cache/$1
    need python3 "install Python 3.10 or newer"
    if [ "$(cat "$folder/installed" 2>/dev/null)" != "$2" ]; then
        say "installing $2 into $folder"
        rm -rf "$folder"
        python3 -m venv "$folder" || fail "python3 can't make environments: apt install python3-venv"
        "$folder/bin/pip" install --quiet --disable-pip-version-check "$2" || fail "\`$2\` can't be installed"
        printf '%s\n' "$2" >"$folder/installed"
    fi
    python=$folder/bin/python
}

# quietly LOG COMMAND...: shows what was printed only if it failed.
quietly() {
    local log=$scratch/$1
    shift
    "$@" >"$log" 2>&1 || { tail -n 60 "$log" >&2; fail "$*"; }
}

# stand_in FILE: a binary that notes each start and ends with the exit code that $scratch/code says.
# shellcheck disable=SC2016
stand_in() {
    printf '#!/bin/sh\necho x >>"%s"\necho report\necho "a reason" >&2\nexit "$(cat "%s")"\n' \
        "$scratch/calls" "$scratch/code" >"$1"
    chmod +x "$1"
}

check_systemd() {
    need systemd-analyze "apt install systemd"
    local units=$scratch/units unit told
    mkdir "$units"
    # verify looks whether the binary is there
    for unit in "$here"/systemd/*.{service,timer}; do
        sed 's#/usr/local/bin/medallion#/bin/true#' "$unit" >"$units/$(basename "$unit")"
    done
    # an unknown key is a warning and exit code 0
    told=$(SYSTEMD_UNIT_PATH="$units:" systemd-analyze verify --man=no "$units"/*.{service,timer} 2>&1) ||
        fail "systemd-analyze verify: $told"
    told=$(grep medallion <<<"$told" || true)
    [ -z "$told" ] || fail "systemd-analyze verify: $told"
    for unit in run stream maintenance monitor; do
        quietly security systemd-analyze security --offline=yes --threshold=40 "$units/medallion-$unit.service"
    done
    say "systemd: $(find "$units" -type f | wc -l) units, $(systemd-analyze --version | head -n 1)"
}

check_cron() {
    need crontab "apt install cron"
    # cronie has -T, Debian's cron -n
    local dry_run=-n
    crontab -V 2>&1 | grep -q cronie && dry_run=-T
    quietly crontab crontab "$dry_run" "$here/cron/medallion.crontab"

    local bin=$scratch/bin code told wanted
    mkdir "$bin"
    stand_in "$bin/medallion"
    for code in 0 2 3 4 5 6 70; do
        : >"$scratch/calls"
        printf '%s\n' "$code" >"$scratch/code"
        local ended=0
        told=$(PATH="$bin:$PATH" MEDALLION_SECRETS=/dev/null MEDALLION_TRIES=3 MEDALLION_PAUSE=0 \
            "$here/cron/medallion-retry" run) || ended=$?
        [ "$ended" = "$code" ] || fail "medallion-retry ended with $ended, not $code"
        wanted=1
        case $code in 5 | 6) wanted=3 ;; esac
        [ "$(wc -l <"$scratch/calls")" = "$wanted" ] || fail "medallion-retry tried code $code other than $wanted times"
        case $code$told in
            0) ;;
            0?*) fail "medallion-retry printed where nothing is wrong: $told" ;;
            *"exit code $code"*"a reason"*) ;;
            *) fail "medallion-retry did not say why it failed: $told" ;;
        esac
    done
    say "cron: the crontab, 7 exit codes of medallion-retry"
}

check_airflow() {
    need_binary
    venv airflow "$AIRFLOW"
    export AIRFLOW_HOME=$scratch/airflow AIRFLOW__CORE__DAGS_FOLDER=$here/airflow AIRFLOW__CORE__LOAD_EXAMPLES=False
    export MEDALLION_LAKE=$scratch/lake_airflow PYTHONDONTWRITEBYTECODE=1
    local dag log
    quietly migrate "$python" -m airflow db migrate
    quietly dags "$python" "$here/tests/airflow_check.py"
    for dag in medallion_run medallion_rerun medallion_maintenance; do
        log=$scratch/$dag
        "$python" -m airflow dags test "$dag" 2025-08-14 >"$log" 2>&1 || { tail -n 60 "$log" >&2; fail "the DAG $dag"; }
        grep -q "DagRun Finished.* state=success" "$log" || { tail -n 60 "$log" >&2; fail "the DAG $dag did not succeed"; }
    done
    [ -d "$MEDALLION_LAKE/gold" ] || fail "the DAGs succeeded and wrote no gold"
    say "$(tail -n 1 "$scratch/dags"), 3 DAGs run on $MEDALLION_PROJECT, $AIRFLOW"
}

check_dagster() {
    need_binary
    venv dagster "$DAGSTER"
    export MEDALLION_LAKE=$scratch/lake_dagster PYTHONDONTWRITEBYTECODE=1 DAGSTER_DISABLE_TELEMETRY=1
    quietly jobs "$python" "$here/tests/dagster_check.py"
    say "$(tail -n 1 "$scratch/jobs"), $DAGSTER"
}

check_kubernetes() {
    venv kubernetes "$KUBERNETES_VALIDATE"
    quietly manifests "$python" -m kubernetes_validate --strict -k "$KUBERNETES" "$here"/kubernetes/*.yaml
    say "kubernetes: $(grep -c passed "$scratch/manifests") resources against Kubernetes $KUBERNETES, $KUBERNETES_VALIDATE"
}

all=(systemd cron airflow dagster kubernetes)
[ $# -gt 0 ] || set -- "${all[@]}"
for name in "$@"; do
    case " ${all[*]} " in
        *" $name "*) ;;
        *) fail "there is no \`$name\` here: ${all[*]}" ;;
    esac
done
for name in "$@"; do
    "check_$name"
done
