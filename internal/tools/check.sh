#!/usr/bin/env bash
# check.sh: what must hold besides the tests: formatting, vet, staticcheck,
# generated code, import arrows, tidy modules. All of it runs, whatever fails first.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
failed=()

# check NAME COMMAND... : runs one check.
check() {
	echo "check: $1" >&2
	"${@:2}" || failed+=("$1")
}

formatting() {
	local files
	files=$(git ls-files --cached --others --exclude-standard '*.go' | xargs -r ls 2>/dev/null | xargs -r gofmt -l)
	[ -z "$files" ] || { echo "not gofmt'ed: $files" >&2; return 1; }
}

static() {
	go -C internal/tools build -o "$bin/staticcheck" honnef.co/go/tools/cmd/staticcheck && "$bin/staticcheck" ./...
}

check formatting formatting
check "go vet" go vet ./...
check staticcheck static
check "generated code" internal/tools/generate.sh --check
check "import arrows, dependencies, links" go test -count=1 ./internal/arrows
check "tidy module" go mod tidy -diff
check "tidy tools module" go -C internal/tools mod tidy -diff

if [ ${#failed[@]} -gt 0 ]; then
	printf 'check: failed: %s\n' "${failed[@]}" >&2
	exit 1
fi
echo "check: ok" >&2
