#!/usr/bin/env bash
# Makes sure that what building and testing need is there: a C compiler (for zstd, ring and aws-lc), make, curl,
# python3 (the oracle test) and the Rust toolchain of rust-toolchain.toml. Installs what is missing where it may,
# else says exactly what to install. Does nothing, quickly, when all is there.
#
# usage: scripts/setup.sh [--services]      with --services also what the tests' services need: Java 17 (or 11),
#                                   Maven, flock, strace, moto, Chromium
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

have() { command -v "$1" >/dev/null 2>&1; }
say() { printf 'setup: %s\n' "$*" >&2; }
# PACKAGE: whether apt can install it, not only knows the name. Not by a pipe: grep would leave before apt-cache has ended
packaged() { case "$(apt-cache policy "$1" 2>/dev/null)" in *"Candidate: "[0-9]*) ;; *) return 1 ;; esac; }
channel=$(sed -nE 's/^channel = "(.*)"/\1/p' rust-toolchain.toml)

# --- system packages

missing=()
have cc || missing+=(build-essential)
have make || missing+=(make)
have python3 || missing+=(python3)
have cargo || have rustup || { have curl || missing+=(curl); [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates); }

if [ "${1:-}" = --services ]; then
    scripts/cassandra.sh java >/dev/null 2>&1 || missing+=(openjdk-17-jre-headless)
    # only to fetch the jars, once
    have mvn || scripts/cassandra.sh installed || missing+=(maven)
    have flock || missing+=(util-linux)
    # the site of `docs --html` is tested in a browser; other names than Debian's are fine
    have chromium || have chromium-browser || have google-chrome || have google-chrome-stable || missing+=(chromium)
    # what is on the disk when, and full disks
    have strace || missing+=(strace)
    # for the object store of the tests
    scripts/object_store.sh installed || python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
fi

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

install_packages() { # PACKAGE…
    if ! { [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; }; }; then
        say "missing: $*"
        say "without root or password-less sudo this has to be done by hand:"
        say "    sudo apt-get update && sudo apt-get install -y $*"
        exit 1
    fi
    if ! have apt-get; then
        say "missing: $* (Debian's names); install them with this system's package manager, then try again"
        exit 1
    fi
    say "installing $*"
    as_root apt-get update -qq
    case " $* " in *" openjdk-17-jre-headless "*)
        if ! packaged openjdk-17-jre-headless; then
            say "this system packages no Java 17, which Cassandra needs (21 is too new for it):"
            say "install one from https://adoptium.net/temurin/releases?version=17 and set JAVA_HOME, then try again"
            exit 1
        fi ;;
    esac
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"

# --- Rust

if ! have rustup && ! have cargo; then
    # Debian 13 and Ubuntu 24.04 package rustup; older ones know the name and have none
    if have apt-get && packaged rustup && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then
        install_packages rustup
    else
        say "installing rustup for $(id -un)"
        installer=$(mktemp)
        trap 'rm -f "$installer"' EXIT
        # where https://sh.rustup.rs leads to; from here the toolchain comes too
        if ! curl --proto '=https' --tlsv1.2 -sSf https://static.rust-lang.org/rustup/rustup-init.sh -o "$installer"; then
            say "could not fetch rustup; install it from https://rustup.rs, or Rust $channel by other means, then try again"
            exit 1
        fi
        sh "$installer" -y --no-modify-path --profile minimal --default-toolchain none >&2
    fi
fi

if have rustup; then
    # not left to cargo: whether it installs a pinned toolchain by itself depends on rustup's version and settings
    if ! rustup run "$channel" rustc --version >/dev/null 2>&1; then
        say "installing Rust $channel"
        rustup toolchain install "$channel" --profile minimal -c rustfmt -c clippy >&2
    elif ! rustup run "$channel" cargo clippy --version >/dev/null 2>&1 ||
        ! rustup run "$channel" cargo fmt --version >/dev/null 2>&1; then
        rustup component add --toolchain "$channel" rustfmt clippy >&2
    fi
else
    # a distribution's own Rust: rust-toolchain.toml means nothing to it, so its age is checked here
    found=$(cargo --version | cut -d' ' -f2)
    if [ "$(printf '%s\n%s\n' "$channel" "$found" | sort -V | head -n 1)" != "$channel" ]; then
        say "cargo is $found, $channel or later is needed: install rustup (https://rustup.rs), or a newer Rust"
        exit 1
    fi
fi

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))'; then
    say "python3 is older than 3.9, which the oracle test needs: install a newer one"
    exit 1
fi

if [ "${1:-}" = --services ]; then
    scripts/object_store.sh install
fi
