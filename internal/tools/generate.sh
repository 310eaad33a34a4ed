#!/usr/bin/env bash
# generate.sh [--check]: writes the Go code of every .proto file anew; with --check
# it changes nothing and fails if that would.
set -euo pipefail
cd "$(dirname "$0")/../.."

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
go -C internal/tools build -o "$out/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
mapfile -t protos < <(find . -name '*.proto' -not -path './.git/*' | sed 's|^\./||' | sort)
[ ${#protos[@]} -gt 0 ] || exit 0
mkdir "$out/go"
protoc --plugin=protoc-gen-go="$out/protoc-gen-go" --go_out="$out/go" --go_opt=paths=source_relative "${protos[@]}"

stale=0
for proto in "${protos[@]}"; do
	go=${proto%.proto}.pb.go
	# The line with protoc's own version differs between machines and means nothing.
	if diff -q <(grep -v '^// 	protoc' "$out/go/$go") <(grep -v '^// 	protoc' "$go" 2>/dev/null) >/dev/null; then
		continue
	fi
	if [ "${1:-}" = --check ]; then
		echo "$go is not what $proto generates; run: make generate" >&2
		stale=1
	else
		cp "$out/go/$go" "$go"
	fi
done
exit $stale
