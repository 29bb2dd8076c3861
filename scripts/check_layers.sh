#!/usr/bin/env bash
# Layering rules that the compiler does not know; grep does. Prints every violation, exits 1 if there is one.
# Tests and comments may say what they like; help texts may show examples of the reference project.
set -euo pipefail
cd "$(dirname "$0")/.."

# every line of production code, as path:line: text
code=$(find src -name '*.rs' ! -name tests.rs -print0 | sort -z | xargs -0 awk '
    FNR == 1 { in_tests = 0; maybe = 0 }
    in_tests { next }
    maybe && /^mod tests \{/ { in_tests = 1; next }
    { maybe = /^#\[cfg\(test\)\]/ }
    !/^[[:space:]]*\/\// && !/^[[:space:]]*medallion [a-z-]/ { print FILENAME ":" FNR ": " $0 }')
failed=0
refuse() { # WHAT FOLDER PATTERN: no line below FOLDER may match
    local found
    found=$(grep -E "^$2" <<<"$code" | grep -wE "$3" || true)
    [ -z "$found" ] || { printf 'error: %s:\n%s\n' "$1" "$found" >&2; failed=1; }
}

# the words of the reference project: names of its tables, questions, checks, columns, rules and warnings that are
# more than one word (a single word, such as `users` or `value`, is English too)
words=$({
    find sql cql examples/*/sql examples/*/cql -type f 2>/dev/null | sed 's|.*/||; s|\..*||'
    sed -nE 's/^[[:space:]]*(\{ )?(name|error_type) = "([a-z0-9_]+)".*/\3/p' sql/bronze/*.toml
    sed -nE 's/^[[:space:]]+([a-z0-9_]+) [a-z]+.*,$/\1/p' cql/tables/*.cql
} | grep _ | sort -u | paste -sd'|')

refuse 'the engine knows zones, the project knows tables' src/ "$words|finops|genai|cassandra_[a-z_]+"
refuse 'lake/ stands below the flow' src/lake/ 'crate::(flow|cli|trigger|engine)'
refuse 'decode/ stands alone' src/decode/ 'crate::[a-z_]+'
refuse 'project/ touches no data' src/project/ 'crate::(flow|cli|trigger)'
refuse 'flow/ does not know who asks' src/flow/ 'crate::(cli|trigger)'
refuse 'notify/ does not know who asks' src/notify/ 'crate::(cli|trigger)'

# messages: lowercase, no full stop at the end
call='(Error::[a-z]+\(|tracing::(error|warn|info|debug)!\(([^"();]*,)?|\.during\(|found\.add(_at)?\([^"();]*)\s*(\|\|\s*)?(format!\(\s*)?'
for flaw in '"[A-Z][a-z]' '"[^"\n]*[^.]\."\s*[,)]'; do
    found=$(grep -rPzo --include='*.rs' --exclude=tests.rs "$call$flaw" src | tr '\0' '\n' || true)
    [ -z "$found" ] || { printf 'error: a message starts lowercase and ends without a full stop:\n%s\n' "$found" >&2; failed=1; }
done
exit $failed
