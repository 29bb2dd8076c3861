#!/usr/bin/env bash
# check_openlineage.sh [FILE]: validates OpenLineage events with the classes of the official Python client, which are
# generated from the specification: every facet must be known in the version that it names, with its required keys, and
# no key may be unknown. Without FILE the events of a run of this repository's sample.
#
# MEDALLION_BIN  the binary; else that of target/release, target/debug, or the PATH
set -euo pipefail

CLIENT=openlineage-python==1.54.0
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/medallion/openlineage
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

if [ "$(cat "$cache/installed" 2>/dev/null)" != "$CLIENT" ]; then
    command -v python3 >/dev/null || fail 'python3 is missing: install Python 3.10 or newer'
    rm -rf "$cache"
    python3 -m venv "$cache" || fail "python3 can't make environments: apt install python3-venv"
    "$cache/bin/pip" install --quiet --disable-pip-version-check "$CLIENT" || fail "\`$CLIENT\` can't be installed"
    printf '%s\n' "$CLIENT" >"$cache/installed"
fi

events=${1:-}
if [ -z "$events" ]; then
    for candidate in "${MEDALLION_BIN:-}" "${CARGO_TARGET_DIR:-$root/target}"/{release,debug}/medallion "$(command -v medallion || true)"; do
        [ -x "$candidate" ] && binary=$candidate && break
    done
    [ -x "${binary:-}" ] || fail "no \`medallion\` binary: run \`make build\`, or name one in MEDALLION_BIN"
    events=$scratch/events.jsonl
    # 4: the sample holds what a person has to look at
    code=0
    OPENLINEAGE_URL='' MEDALLION_OPENLINEAGE_FILE=$events \
        "$binary" --quiet --project "$root" --lake "$scratch/lake" run >/dev/null 2>&1 || code=$?
    case $code in 0 | 4) ;; *) fail "the run ended with $code" ;; esac
fi
"$cache/bin/python" - "$events" <<'PYTHON'
import collections, inspect, json, sys, typing
import attr
from openlineage.client import event_v2, facet_v2
from openlineage.client.generated import base

# every generated class by the address of its schema
classes = {}
for module in vars(facet_v2).values():
    if inspect.ismodule(module):
        for _, value in inspect.getmembers(module, inspect.isclass):
            if attr.has(value) and hasattr(value, "_get_schema") and issubclass(value, base.BaseFacet):
                classes[value._get_schema()] = value

def inner(hint):
    """The attr class that a type hint means, for one item."""
    for part in typing.get_args(hint) or (hint,):
        found = part if inspect.isclass(part) and attr.has(part) else None
        if found is None and typing.get_args(part):
            found = inner(part)
        if found is not None:
            return found
    return None

def build(cls, value, where):
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {cls.__name__} expected, got {value!r}")
    fields = {field.name.lstrip("_") if field.init else field.name: field for field in attr.fields(cls)}
    hints = typing.get_type_hints(cls, vars(sys.modules[cls.__module__]) | {"Any": typing.Any, "ClassVar": typing.ClassVar})
    arguments = {}
    for key, item in value.items():
        if key in ("_producer", "_schemaURL", "_deleted"):
            continue
        if key not in fields:
            raise ValueError(f"{where}: {cls.__name__} has no `{key}`")
        kind = inner(hints.get(key))
        if kind is not None and isinstance(item, list):
            item = [build(kind, one, f"{where}.{key}") for one in item]
        elif kind is not None and isinstance(item, dict):
            many = "dict" in str(hints[key])
            item = {k: build(kind, v, f"{where}.{key}.{k}") for k, v in item.items()} if many else build(kind, item, f"{where}.{key}")
        arguments[key] = item
    return cls(**arguments)

counted = collections.Counter()

def facets(of, parent, where):
    built = {}
    for name, value in (of or {}).items():
        cls = classes.get(value["_schemaURL"])
        if cls is None:
            raise ValueError(f"{where}.{name}: {value['_schemaURL']} is not in the specification")
        if not issubclass(cls, parent):
            raise ValueError(f"{where}.{name}: {cls.__name__} is no {parent.__name__}")
        if not value["_producer"].startswith("https://"):
            raise ValueError(f"{where}.{name}: {value['_producer']}")
        built[name] = build(cls, value, f"{where}.{name}")
        counted[name] += 1
    return built

def dataset(value, cls, key, parent, where):
    unknown = set(value) - {"namespace", "name", "facets", key}
    if unknown:
        raise ValueError(f"{where}: {unknown}")
    own = {key: facets(value.get(key), parent, where)} if parent else {}
    return cls(namespace=value["namespace"], name=value["name"], facets=facets(value.get("facets"), base.DatasetFacet, where), **own)

events = [json.loads(line) for line in open(sys.argv[1])]
for number, event in enumerate(events, 1):
    where = f"event {number}"
    unknown = set(event) - {"eventType", "eventTime", "producer", "schemaURL", "run", "job", "inputs", "outputs"}
    if unknown:
        raise ValueError(f"{where}: {unknown}")
    made = event_v2.RunEvent(
        eventType=event_v2.RunState[event["eventType"]],
        eventTime=event["eventTime"],
        run=event_v2.Run(event["run"]["runId"], facets(event["run"].get("facets"), base.RunFacet, where)),
        job=event_v2.Job(event["job"]["namespace"], event["job"]["name"], facets(event["job"].get("facets"), base.JobFacet, where)),
        inputs=[dataset(one, event_v2.InputDataset, "inputFacets", base.InputDatasetFacet, where) for one in event["inputs"]],
        outputs=[dataset(one, event_v2.OutputDataset, "outputFacets", base.OutputDatasetFacet, where) for one in event["outputs"]],
        producer=event["producer"],
    )
    if event["schemaURL"] != event_v2.RunEvent._get_schema():
        raise ValueError(f"{where}: {event['schemaURL']}")
if not events:
    raise ValueError("there are no events")
print(f"{len(events)} events are valid; facets: " + ", ".join(f"{name} {count}" for name, count in sorted(counted.items())))
PYTHON
