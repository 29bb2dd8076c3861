#!/usr/bin/env bash
# A real Cassandra without containers: 5.0.6 from its own jars (Maven fetches them once into a cache folder), run with
# Java 17 or 11. One node, or three on neighbouring loopback addresses; several clusters side by side have different
# addresses. `scripts/cassandra.sh help` lists what there is to choose.
set -euo pipefail

readonly VERSION=5.0.6
readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/medallion/cassandra-$VERSION"

usage() {
    cat <<'HELP'
scripts/cassandra.sh COMMAND [OPTION…]

Commands
  start     start the nodes in the background, return when they answer; running nodes are left as they are
  stop      stop the nodes that were started in this folder
  status    one line per node; exit code 1 if one is down
  run       run ONE node in the foreground, print `ready` when it answers; it ends with this script, and
            this script ends with its standard input (so a test that is killed leaves nothing behind)
  install   only fetch the jars
  installed whether they have been fetched, by exit code
  java      print the Java that is used

Options
  --dir DIR            data, logs and configuration [${XDG_STATE_HOME:-~/.local/state}/medallion/cassandra]
  --nodes N            1 to 3, on neighbouring addresses [1]
  --address IP         the first node's (loopback) address [127.0.0.1]
  --seed IP            `run`: the address of the node to join [its own]
  --port N             CQL port, of every node [9042]
  --storage-port N     port between nodes [7000]
  --heap SIZE          of each node [512m]
  --auth               users and passwords (at first cassandra/cassandra) instead of letting everybody in
  --tls PEM            TLS for clients: a file with the server's key (PKCS#8) and certificates
  --tls-optional       and without TLS on the same port too
  --tls-clients PEM    clients need a certificate that one of these signed
  --temporary          `run`: remove the folder at the end
  --yaml LINE          one more line for cassandra.yaml; may be repeated
HELP
}

say() { printf 'cassandra: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

command=${1:-help}
[ $# = 0 ] || shift
dir="${XDG_STATE_HOME:-$HOME/.local/state}/medallion/cassandra"
nodes=1 address=127.0.0.1 seed='' port=9042 storage_port=7000 heap=512m auth='' tls='' tls_optional=false tls_clients='' temporary='' yaml=''
while [ $# -gt 0 ]; do
    case $1 in
    --auth) auth=yes; shift; continue ;;
    --temporary) temporary=yes; shift; continue ;;
    --tls-optional) tls_optional=true; shift; continue ;;
    --dir | --nodes | --address | --seed | --port | --storage-port | --heap | --tls | --tls-clients | --yaml) ;;
    *) fail "unknown option \`$1\`; \`scripts/cassandra.sh help\` lists them" ;;
    esac
    [ $# -gt 1 ] || fail "\`$1\` needs a value"
    case $1 in
    --dir) dir=$2 ;;
    --nodes) nodes=$2 ;;
    --address) address=$2 ;;
    --seed) seed=$2 ;;
    --port) port=$2 ;;
    --storage-port) storage_port=$2 ;;
    --heap) heap=$2 ;;
    --tls) tls=$2 ;;
    --tls-clients) tls_clients=$2 ;;
    --yaml) yaml+=$2$'\n' ;;
    esac
    shift 2
done
[[ $nodes =~ ^[1-3]$ ]] || fail "\`--nodes $nodes\`: 1 to 3"
[[ $address =~ ^([0-9]+\.[0-9]+\.[0-9]+)\.([0-9]+)$ ]] || fail "\`--address $address\` is not an IPv4 address"
readonly network=${BASH_REMATCH[1]} first=${BASH_REMATCH[2]}
node_address() { echo "$network.$((first + $1 - 1))"; } # NUMBER

# --- what it runs on

# Cassandra 5 runs on Java 11 and 17; on newer ones it does not start
java_major() { "$1" -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' | head -n 1; } # JAVA
find_java() {
    local candidate
    for candidate in "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java || true)" \
        /usr/lib/jvm/*17*/bin/java /usr/lib/jvm/*11*/bin/java; do
        [ -x "$candidate" ] || continue
        case $(java_major "$candidate") in 17 | 11) echo "$candidate"; return ;; esac
    done
    return 1
}

readonly POM="<project xmlns=\"http://maven.apache.org/POM/4.0.0\">
  <modelVersion>4.0.0</modelVersion>
  <groupId>medallion</groupId><artifactId>cassandra-jars</artifactId><version>$VERSION</version><packaging>pom</packaging>
  <dependencies><dependency>
    <groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>$VERSION</version>
  </dependency></dependencies>
</project>"

# The cache folder appears whole or not at all, whoever else fetches it at the same time.
install_jars() {
    [ ! -e "$CACHE/lib" ] || return 0
    have mvn || fail "Maven is missing, it fetches Cassandra's jars: \`sudo apt-get install -y maven\`, or \`scripts/setup.sh\`"
    have flock || fail "\`flock\` is missing: \`sudo apt-get install -y util-linux\`"
    mkdir -p "$(dirname "$CACHE")"
    (
        flock 9
        [ ! -e "$CACHE/lib" ] || exit 0
        say "fetching Cassandra $VERSION (66 MB, once)"
        fresh=$(mktemp -d "$CACHE.fetching.XXXXXX")
        trap 'rm -rf "$fresh"' EXIT
        echo "$POM" >"$fresh/pom.xml"
        mvn -q -B -f "$fresh/pom.xml" dependency:copy-dependencies -DoutputDirectory="$fresh/lib" </dev/null >&2 ||
            fail "Maven could not fetch Cassandra $VERSION; what it says is above"
        [ -e "$fresh/lib/apache-cassandra-$VERSION.jar" ] || [ -e "$fresh/lib/cassandra-all-$VERSION.jar" ] ||
            fail "Maven fetched no cassandra-all-$VERSION.jar"
        chmod 755 "$fresh"
        mv -T "$fresh" "$CACHE"
    ) 9>"$CACHE.lock"
}

# --- one node

write_configuration() { # FOLDER ADDRESS SEED
    local node=$1 its_address=$2 its_seed=$3
    mkdir -p "$node/conf" "$node/log"
    {
        cat <<YAML
cluster_name: medallion
num_tokens: 4
allocate_tokens_for_local_replication_factor: 3
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
authenticator: ${auth:+PasswordAuthenticator}
authorizer: ${auth:+CassandraAuthorizer}
role_manager: CassandraRoleManager
credentials_validity: 1000ms
data_file_directories: ["$node/data"]
commitlog_directory: "$node/commitlog"
hints_directory: "$node/hints"
saved_caches_directory: "$node/saved_caches"
cdc_raw_directory: "$node/cdc_raw"
commitlog_sync: periodic
commitlog_sync_period: 10s
commitlog_total_space: 512MiB
hinted_handoff_enabled: true
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "$its_seed"
endpoint_snitch: SimpleSnitch
auto_bootstrap: false
listen_address: $its_address
rpc_address: $its_address
storage_port: $storage_port
start_native_transport: true
native_transport_port: $port
YAML
        if [ -n "$tls" ]; then
            cat <<YAML
client_encryption_options:
  enabled: true
  optional: $tls_optional
  ssl_context_factory:
    class_name: org.apache.cassandra.security.PEMBasedSslContextFactory
  keystore: "$tls"
  require_client_auth: $([ -n "$tls_clients" ] && echo true || echo false)
YAML
            [ -z "$tls_clients" ] || echo "  truststore: \"$tls_clients\""
        fi
        printf '%s' "$yaml"
    } | sed -E 's/^(authenticator|authorizer): $/\1: AllowAll\1/; s/AllowAlla/AllowAllA/' >"$node/conf/cassandra.yaml"
    cat >"$node/conf/logback.xml" <<XML
<configuration>
  <appender name="FILE" class="ch.qos.logback.core.FileAppender">
    <file>$node/log/system.log</file>
    <encoder><pattern>%-5level [%thread] %date{ISO8601} %F:%L - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="FILE"/></root>
</configuration>
XML
}

# The command line of a node, into the array `java_command`.
java_command=()
set_java_command() { # FOLDER
    local node=$1 java package
    java=$(find_java) || fail "Java 17 (or 11) is missing, Cassandra $VERSION runs on nothing newer:" \
        "\`sudo apt-get install -y openjdk-17-jre-headless\`, or set JAVA_HOME to one"
    java_command=("$java" "-Xms$heap" "-Xmx$heap" -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -XX:-UsePerfData)
    for package in java.base/{jdk.internal.misc,jdk.internal.ref,sun.nio.ch,java.lang.ref} \
        java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/{sun.rmi.registry,sun.rmi.server} \
        java.sql/java.sql jdk.unsupported/sun.misc; do
        java_command+=(--add-exports "$package=ALL-UNNAMED")
    done
    for package in java.base/{java.lang,java.lang.module,java.lang.reflect,java.io,java.math,java.nio,java.util} \
        java.base/{java.util.concurrent,java.util.concurrent.atomic,jdk.internal.loader,jdk.internal.ref} \
        java.base/{jdk.internal.reflect,jdk.internal.math,jdk.internal.module,jdk.internal.util.jar,sun.nio.ch} \
        jdk.management/com.sun.management.internal java.rmi/sun.rmi.transport.tcp; do
        java_command+=(--add-opens "$package=ALL-UNNAMED")
    done
    java_command+=(
        "-javaagent:$(echo "$CACHE"/lib/jamm-*.jar)" -Djdk.attach.allowAttachSelf=true
        "-Dcassandra.config=file://$node/conf/cassandra.yaml" "-Dcassandra.storagedir=$node"
        "-Dcassandra.logdir=$node/log" "-Djava.io.tmpdir=$node/tmp" -Dcassandra-foreground=yes
        -Dcassandra.skip_wait_for_gossip_to_settle=0 "-Dcassandra.ring_delay_ms=$ring_delay"
        -Dcassandra.superuser_setup_delay_ms=0
        -cp "$node/conf:$CACHE/lib/*" org.apache.cassandra.service.CassandraDaemon)
}

alive() { # FOLDER: whether the process that was started there still runs
    local pid
    pid=$(cat "$1/pid" 2>/dev/null) || return 1
    # a number can be given to another process later: its command line must name this folder
    { tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF -- "-Dcassandra.storagedir=$1"; } 2>/dev/null
}
answers() { (exec 3<>"/dev/tcp/$1/$port") 2>/dev/null; } # ADDRESS

launch() { # FOLDER ADDRESS SEED: starts the process, its number is in FOLDER/pid
    local node=$1
    ! answers "$2" || fail "something else listens on $2:$port"
    write_configuration "$node" "$2" "$3"
    mkdir -p "$node/tmp"
    [ ! -e "$node/log/system.log" ] || mv "$node/log/system.log" "$node/log/system.before.log"
    set_java_command "$node"
    # a group of its own: Ctrl-C reaches the script, which then stops the node in order
    setsid "${java_command[@]}" </dev/null >"$node/log/output.log" 2>&1 &
    local pid=$!
    echo "$pid" >"$node/pid"
    # until it has become Java, its command line is that of this script
    for _ in $(seq 100); do
        ! alive "$node" && kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
}

ready() { # FOLDER ADDRESS
    grep -q 'Starting listening for CQL clients' "$1/log/system.log" 2>/dev/null && answers "$2" &&
        { [ -z "$auth" ] || [ -e "$1/log/system.before.log" ] || [ "$2" != "${seed:-$address}" ] ||
            grep -q "Created default superuser role" "$1/log/system.log"; }
}

wait_ready() { # FOLDER ADDRESS
    local waited=0
    until ready "$1" "$2"; do
        if ! alive "$1" || [ $waited -ge 2400 ]; then
            say "the node on $2 did not start; the end of $1/log:"
            tail -n 15 "$1/log/output.log" "$1/log/system.log" >&2 || true
            ! alive "$1" || kill -KILL "$(cat "$1/pid")"
            return 1
        fi
        sleep 0.1
        waited=$((waited + 1))
    done
}

halt() { # FOLDER
    local pid waited=0
    alive "$1" || { rm -f "$1/pid"; return 0; }
    pid=$(cat "$1/pid")
    kill -TERM "$pid" 2>/dev/null || true
    while alive "$1"; do
        [ $waited -lt 300 ] || kill -KILL "$pid" 2>/dev/null || true
        sleep 0.1
        waited=$((waited + 1))
    done
    rm -f "$1/pid"
}

# --- commands

prepare() {
    find_java >/dev/null || set_java_command "$dir" # which says what is missing
    install_jars
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    # how long a node waits for what others say of the ring; alone there is nobody to wait for
    if [ "$nodes" = 1 ] && [ "${seed:-$address}" = "$address" ]; then ring_delay=1; else ring_delay=2000; fi
}

case $command in
help | --help | -h) usage ;;
install) prepare ;;
installed) [ -e "$CACHE/lib" ] ;;
java) find_java ;;
start)
    prepare
    for number in $(seq "$nodes"); do
        node="$dir/node$number" its_address=$(node_address "$number")
        if alive "$node"; then
            wait_ready "$node" "$its_address"
        else
            say "starting a node on $its_address:$port"
            launch "$node" "$its_address" "$address"
            wait_ready "$node" "$its_address"
        fi
    done
    say "Cassandra $VERSION answers on $(for number in $(seq "$nodes"); do printf '%s:%s ' "$(node_address "$number")" "$port"; done)(data and logs in $dir)"
    ;;
stop)
    found=''
    for node in "$dir"/node*; do
        ! alive "$node" || { found=yes; halt "$node"; }
    done
    if [ -n "$found" ]; then say "stopped"; else say "nothing runs in $dir"; fi
    ;;
status)
    code=0 found=''
    for node in "$dir"/node*; do
        [ -e "$node/conf/cassandra.yaml" ] || continue
        found=yes
        its_address=$(sed -n 's/^rpc_address: //p' "$node/conf/cassandra.yaml")
        port=$(sed -n 's/^native_transport_port: //p' "$node/conf/cassandra.yaml")
        if alive "$node" && answers "$its_address"; then echo "$its_address:$port up"; else echo "$its_address:$port down"; code=1; fi
    done
    [ -n "$found" ] || { echo "no node was started in $dir"; code=1; }
    exit $code
    ;;
run)
    prepare
    ! alive "$dir" || fail "a node runs in $dir"
    end() {
        halt "$dir"
        [ -z "$temporary" ] || rm -rf "$dir"
    }
    trap end EXIT
    trap 'exit 130' INT TERM HUP
    # by a process of its own, because a shell does not see the end of its input while it waits for something else
    exec 4<&0
    (cat <&4 >/dev/null; kill -TERM $$ 2>/dev/null; end) >/dev/null 2>&1 &
    exec 4<&-
    launch "$dir" "$address" "${seed:-$address}"
    wait_ready "$dir" "$address"
    echo ready
    wait "$(cat "$dir/pid")" || true
    ;;
*) fail "unknown command \`$command\`; \`scripts/cassandra.sh help\` lists them" ;;
esac
