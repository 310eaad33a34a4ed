# Every target works from a fresh clone. As root, what a Debian machine lacks is
# installed; otherwise the target says which package is missing.

MOUNT ?= /mnt/forever
DATA  ?=
BENCH ?=
PREFIX ?= /usr/local
# Where mount(8) looks for its helpers, and there only.
SBIN  ?= /sbin
FUZZTIME ?= 20s

VERSION := $(shell git describe --always --dirty 2>/dev/null || echo devel)
# Without C: one file that runs on any Linux, and memory that the collector knows of.
GO_BUILD := CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=$(VERSION)"
NEED := internal/tools/need.sh

.PHONY: all build install mount umount demo test accept check generate fuzz bench microbench clean

all: build

build:
	$(GO_BUILD) -o bin/fsmount ./cmd/fsmount

# The command, and under its other names the helper of mount(8): mount -t fsmount, /etc/fstab.
install: build
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(SBIN)"
	install -m 755 bin/fsmount "$(DESTDIR)$(PREFIX)/bin/fsmount"
	ln -sf "$(abspath $(PREFIX))/bin/fsmount" "$(DESTDIR)$(SBIN)/mount.fsmount"
	ln -sf "$(abspath $(PREFIX))/bin/fsmount" "$(DESTDIR)$(SBIN)/mount.fuse.fsmount"
	ln -sf "$(abspath $(PREFIX))/bin/fsmount" "$(DESTDIR)$(SBIN)/mount.fuse.forever"

# Builds, makes the mount point, mounts. The first time this creates a volume and
# shows its recovery phrase.
mount: build
	@$(NEED) fuse3:fusermount3
	@mkdir -p "$(MOUNT)" || { echo "choose a directory of yours: make mount MOUNT=\$$HOME/forever" >&2; exit 1; }
	bin/fsmount $(if $(DATA),--data "$(DATA)") --daemon "$(MOUNT)"
	@echo "mounted at $(MOUNT); bin/fsmount umount $(MOUNT) ends it"

umount: build
	bin/fsmount umount "$(MOUNT)"

# Two nodes on this machine and a story between them.
demo: build
	@$(NEED) fuse3:fusermount3
	go run ./internal/demo -bin bin/fsmount

test:
	@$(NEED) fuse3:fusermount3 sqlite3:sqlite3 git:git iproute2:ip gcc:gcc libc6-dev:gcc
	go test -race -shuffle=on -timeout 40m ./...

# The same at the sizes that users meet; takes long and prints figures. With FOREVER_PJDFSTEST=DIR, a built
# checkout of github.com/pjd/pjdfstest, that suite as well, beside the file system below; with FOREVER_XFSTESTS=DIR,
# a built one of xfstests, its fsx and fsstress.
accept:
	@$(NEED) fuse3:fusermount3 sqlite3:sqlite3 git:git iproute2:ip
	FOREVER_ACCEPT=full go test -count=1 -v -timeout 3h -run 'TestConvergence$$|TestModel|TestLateOp' ./namespace/
	FOREVER_ACCEPT=full go test -count=1 -v -timeout 3h -run TestSimulation ./internal/lease/ ./internal/lock/
	FOREVER_ACCEPT=full go test -count=1 -v -timeout 3h -run TestManyDevices ./replica/
	FOREVER_ACCEPT=full go test -count=1 -v -timeout 3h ./internal/accept/

check:
	@$(NEED) git:git protobuf-compiler:protoc
	internal/tools/check.sh

generate:
	@$(NEED) protobuf-compiler:protoc
	internal/tools/generate.sh

# Every fuzz target for FUZZTIME.
fuzz:
	internal/tools/fuzz.sh $(FUZZTIME)

# The mount against the local disk, gocryptfs if it is installed, and the dispatch
# alone: docs/performance.md. BENCH takes flags and what to measure, BENCH=--help lists them.
bench:
	@$(NEED) fuse3:fusermount3 sqlite3:sqlite3 git:git
	go run ./internal/bench $(BENCH)

# Single operations, by Go's benchmarks.
microbench:
	go test -run '^$$' -bench . -benchmem -timeout 30m ./...

clean:
	rm -rf bin
