#!/usr/bin/env bash
# fuzz.sh DURATION: runs every fuzz target of the module for that long.
set -euo pipefail
cd "$(dirname "$0")/../.."

for pkg in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "fuzz: $pkg $target" >&2
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" -fuzzminimizetime 100x "$pkg"
	done
done
