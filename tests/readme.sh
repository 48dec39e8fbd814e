#!/usr/bin/env bash
# Runs the README's commands: every ```sh block under a line `<!-- checked -->`. A command that
# fails, fails the test; what it prints is for people.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

commands=$(awk '
    /^<!-- checked -->$/ { checked = 1; next }
    checked && /^```sh$/ { inside = 1; next }
    /^```$/ { inside = checked = 0 }
    inside { print }
' README.md)
[ -n "$commands" ] || { echo "readme.sh: README.md has no checked block" >&2; exit 1; }

while IFS= read -r command; do
    echo "\$ $command"
    bash -euo pipefail -c "$command" </dev/null
done <<<"$commands"
