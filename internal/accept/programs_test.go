package accept

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// place is where a program works: a mount, or a directory of the local file system to compare with.
type place struct {
	t   *testing.T
	dir string
	as  *syscall.Credential // nil: as the test
	env []string
}

// warns matches what a program says on its error stream when something is not as it should be.
var warns = regexp.MustCompile(`(?i)warn|error|fail|cannot|can't|unable|not supported|corrupt|invalid|denied|ignor`)

// sh runs a script, which must succeed and say nothing on its error stream that sounds
// like a warning, and returns its standard output.
func (p *place) sh(script string, args ...string) string {
	p.t.Helper()
	cmd := exec.Command("sh", append([]string{"-ec", script, "sh"}, args...)...)
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), p.env...)
	if p.as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		p.t.Fatalf("in %s: %s: %v\n%s\n%s", p.dir, script, err, tail(out.String()), tail(errs.String()))
	}
	for line := range strings.Lines(errs.String()) {
		if warns.MatchString(line) {
			p.t.Errorf("in %s: %s: %s", p.dir, script, line)
		}
	}
	return out.String()
}

// onBoth runs a test of a program on a mount and on the local file system, and compares the times.
func onBoth(t *testing.T, mnt, name string, test func(t *testing.T, p *place)) {
	t.Run(name, func(t *testing.T) {
		native := timed(func() { test(t, &place{t: t, dir: t.TempDir()}) })
		dir := filepath.Join(mnt, strings.ReplaceAll(name, " ", "-"))
		must(t, os.Mkdir(dir, 0o755))
		ours := timed(func() { test(t, &place{t: t, dir: dir}) })
		t.Logf("%.2f s, natively %.2f s (%.1fx)", ours.Seconds(), native.Seconds(), ours.Seconds()/native.Seconds())
	})
}

// needProgram skips a test for a program that is not here.
func needProgram(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
}

// TestPrograms runs programs on a mount that people run, and the same beside it. None may fail, or warn.
func TestPrograms(t *testing.T) {
	a, _ := pair(t)
	onBoth(t, a.mnt, "git", testGit)
	onBoth(t, a.mnt, "sqlite3", testSQLite)
	onBoth(t, a.mnt, "sqlite3 from two processes", testSQLiteTwice)
	onBoth(t, a.mnt, "go build", testGoBuild)
	onBoth(t, a.mnt, "tar", testTar)
	onBoth(t, a.mnt, "rsync", testRsync)
	onBoth(t, a.mnt, "npm", testNpm)
}

func testGit(t *testing.T, p *place) {
	src := t.TempDir()
	p.env = []string{"GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@example.com", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@example.com"}
	(&place{t: t, dir: src, env: p.env}).sh(`git init -q -b main && cp -r "$1" tree && git add . && git commit -qm first`, filepath.Join(goRoot(t), "src", scale("net/http", "net")))
	p.sh(`git clone -q "$1" clone`, src)
	c := &place{t: t, dir: filepath.Join(p.dir, "clone"), env: p.env}
	c.sh(`
		clean() { test -z "$(git status --porcelain)"; }
		clean
		echo more > more && git add . && git commit -qm second
		git fsck --full --strict --no-progress
		git checkout -q -b side && echo side > side && git add side && git commit -qm third
		git mv tree moved && git commit -qm moved && clean
		git worktree add -q ../other main
		test -f ../other/more && git -C ../other status --porcelain | wc -l | grep -qx 0
		git worktree list | wc -l | grep -qx 2
		echo x > ../other/x && git -C ../other add x && git -C ../other commit -qm fourth
		git merge -q -m merged main && clean
		git stash -q --include-untracked || true
		git worktree remove ../other && test ! -e ../other
		git gc -q --prune=now && git fsck --full --strict --no-progress && clean
		git repack -q -a -d && git fsck --no-progress
		git clone -q --shared . ../second && git -C ../second fsck --no-progress
		git archive HEAD | tar xf - -C ../second && test -z "$(git -C ../second status --porcelain)"
		git rm -rq . && git reset -q --hard && clean`)
}

func testSQLite(t *testing.T, p *place) {
	needProgram(t, "sqlite3")
	rows := scale(1000, 10000)
	for _, mode := range []string{"delete", "truncate", "persist", "wal"} {
		db := mode + ".db"
		p.sh(`sqlite3 "$1" "$2"`, db, fmt.Sprintf(`pragma journal_mode=%s; create table t(id integer primary key, x text); with recursive c(i) as (select 1 union all select i+1 from c where i<%d) insert into t select i, hex(randomblob(50)) from c; update t set x = x || 'u' where id %% 3 = 0; delete from t where id %% 7 = 0;`, mode, rows))
		p.sh(`i=0; while [ $i -lt "$2" ]; do sqlite3 "$1" "insert into t(x) values($i)"; i=$((i+1)); done`, db, strconv.Itoa(scale(10, 100)))
		p.sh(`sqlite3 "$1" vacuum`, db)
		integrityOK(p, db)
	}
}

func integrityOK(p *place, db string) {
	p.t.Helper()
	if out := p.sh(`sqlite3 "$1" "pragma integrity_check"`, db); strings.TrimSpace(out) != "ok" {
		p.t.Errorf("%s: integrity_check: %s", db, out)
	}
}

// testSQLiteTwice has two processes write one database at once, in either way of keeping a journal.
func testSQLiteTwice(t *testing.T, p *place) {
	needProgram(t, "sqlite3")
	each := scale(40, 400)
	for _, mode := range []string{"delete", "wal"} {
		db := mode + ".db"
		p.sh(`sqlite3 "$1" "pragma journal_mode=$2; create table t(who int, n int, filler text, primary key(who, n)); create table c(n int); insert into c values(0)"`, db, mode)
		p.sh(`
			writer() {
				i=0
				echo ".timeout 60000"
				while [ $i -lt "$2" ]; do
					echo "begin immediate; insert into t values($1, $i, hex(randomblob(300))); update c set n = n + 1; commit;"
					echo "select count(*) from t where who = 3 - $1;"
					i=$((i+1))
				done
			}
			writer 1 "$2" | sqlite3 -bail "$1" > /dev/null & one=$!
			writer 2 "$2" | sqlite3 -bail "$1" > /dev/null & two=$!
			wait $one && wait $two`, db, strconv.Itoa(each))
		integrityOK(p, db)
		if out := p.sh(`sqlite3 "$1" "select count(*), (select n from c) from t"`, db); strings.TrimSpace(out) != fmt.Sprintf("%d|%d", 2*each, 2*each) {
			t.Errorf("%s: rows and counter: %s, want %d of each", mode, out, 2*each)
		}
	}
}

// testGoBuild builds a program with everything that the compiler touches in one
// place: this project in the whole run, a few lines in the everyday one.
func testGoBuild(t *testing.T, p *place) {
	p.env = []string{"GOCACHE=" + filepath.Join(p.dir, "cache"), "GOTMPDIR=" + filepath.Join(p.dir, "tmp"), "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0"}
	what := "."
	p.sh(`mkdir tmp project`)
	if full {
		root := strings.TrimSpace(run(t, "", "go", "list", "-m", "-f", "{{.Dir}}"))
		what = "./cmd/fsmount"
		p.sh(`cd "$1" && tar cf - --exclude .git --exclude bin . | tar xf - -C "$2"`, root, filepath.Join(p.dir, "project"))
	} else {
		p.sh(`cd project && go mod init example.com/hello 2> /dev/null
			printf 'package main\n\nimport "os"\n\nfunc main() { os.Stdout.WriteString(os.Args[1]) }\n' > hello.go`)
	}
	p.sh(`cd project && go build -o ../built "$1"`, what)
	again := timed(func() { p.sh(`cd project && go build -o ../built "$1"`, what) })
	if out := p.sh(`./built version`); !strings.Contains(out, "version") && !strings.Contains(out, "fsmount") {
		t.Errorf("what was built prints %q", out)
	}
	t.Logf("in %s a build with everything in the cache takes %v", p.dir, again.Round(time.Millisecond))
}

// makeOddTree makes what archivers have to carry over: links of both kinds, holes, attributes, modes, times.
func makeOddTree(p *place, root string) {
	p.t.Helper()
	needProgram(p.t, "setfattr")
	p.sh(`
		mkdir -p "$1/dir/empty" "$1/links" && cd "$1"
		cp -r "$2" tree
		echo one > dir/one && ln dir/one links/one && ln dir/one links/uno
		ln -s ../dir/one links/soft && ln -s /no/such links/dangling && mkfifo links/fifo
		truncate -s 20M dir/sparse && printf end | dd of=dir/sparse bs=1 seek=10M conv=notrunc status=none
		setfattr -n user.colour -v blue dir/one && setfattr -n user.empty dir && setfattr -n user.long -v "$(head -c 1500 /dev/zero | tr '\0' x)" dir/sparse
		chmod 4751 dir/one && chmod 1777 dir/empty && chmod 0 dir/sparse && chown 1234:5678 dir/sparse
		touch -d '1965-05-05 05:05:05.123456789' dir/one && touch -d '2040-01-01' dir/empty
		printf x > 'dir/name with  spaces
and a line' && printf y > "dir/$(printf '\377\376')"`, root, filepath.Join(goRoot(p.t), "src", scale("net/url", "net")))
}

// facts lists everything about a tree that an archiver carries over, one path a line.
func facts(p *place, root string) string {
	p.t.Helper()
	p.sh(`test -d "$1"`, root)
	find := p.sh(`cd "$1" && find . -not -type d -printf '%p %y %m %n %s %T@ %U %G %l\n' -o -type d -printf '%p %y %m %T@ %U %G\n' | LC_ALL=C sort`, root)
	attrs := p.sh(`cd "$1" && getfattr -R -h -d -m - . | LC_ALL=C sort`, root)
	sums := p.sh(`cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum`, root)
	links := p.sh(`cd "$1" && find . -samefile dir/one | LC_ALL=C sort`, root)
	return find + attrs + sums + links
}

func testTar(t *testing.T, p *place) {
	needProgram(t, "tar")
	native := &place{t: t, dir: t.TempDir()}
	makeOddTree(native, "tree")
	want := facts(native, "tree")
	p.sh(`tar -C "$1" --xattrs --xattrs-include='*' -S -cf from.tar tree && mkdir in && tar -C in --xattrs --xattrs-include='*' -S --same-owner -xpf from.tar`, native.dir)
	sameFacts(p, "unpacked there", facts(p, "in/tree"), want)
	p.sh(`tar -C in --xattrs --xattrs-include='*' -S -cf back.tar tree`)
	native.sh(`mkdir out && tar -C out --xattrs --xattrs-include='*' -S --same-owner -xpf "$1"/back.tar`, p.dir)
	sameFacts(p, "and packed again", facts(native, "out/tree"), want)
	p.sh(`tar --xattrs -S -df from.tar -C in`)
	var st syscall.Stat_t
	must(t, syscall.Stat(filepath.Join(p.dir, "in/tree/dir/sparse"), &st))
	t.Logf("in %s a file of 20 MiB, nearly all of it a hole, shows %d blocks", p.dir, st.Blocks)
}

func sameFacts(p *place, what, got, want string) {
	p.t.Helper()
	if got == want {
		return
	}
	gl, wl := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(gl), len(wl)) {
		if gl[i] != wl[i] {
			p.t.Errorf("%s, in %s: %q, want %q", what, p.dir, gl[i], wl[i])
			return
		}
	}
	p.t.Errorf("%s, in %s: %d lines, want %d", what, p.dir, len(gl), len(wl))
}

func testRsync(t *testing.T, p *place) {
	needProgram(t, "rsync")
	native := &place{t: t, dir: t.TempDir()}
	makeOddTree(native, "tree")
	want := facts(native, "tree")
	sync := func(at *place, from, to string) string {
		// Without -@-1 times of one second count as equal, and are left as they are.
		return at.sh(`rsync -aHAXS -@-1 --delete --itemize-changes "$1" "$2"`, from, to)
	}
	sync(native, native.dir+"/tree/", filepath.Join(p.dir, "in"))
	sameFacts(p, "synced there", facts(p, "in"), want)
	if out := sync(native, native.dir+"/tree/", filepath.Join(p.dir, "in")); out != "" {
		t.Errorf("the second run transfers something:\n%s", tail(out))
	}
	p.sh(`cd in && rm -r tree && echo other > dir/one && ln dir/one new && mkdir -p extra/deep && echo x > extra/deep/file && rm links/fifo`)
	sync(native, native.dir+"/tree/", filepath.Join(p.dir, "in"))
	sameFacts(p, "synced over changes", facts(p, "in"), want)
	sync(p, "in/", native.dir+"/back")
	sameFacts(p, "synced back", facts(native, "back"), want)
	if out := sync(p, "in/", native.dir+"/back"); out != "" {
		t.Errorf("the second run back transfers something:\n%s", tail(out))
	}
}

// testNpm installs a package with some dependencies, which must be had from the network.
func testNpm(t *testing.T, p *place) {
	if !full {
		t.Skip("in the whole run only: needs a package registry")
	}
	needProgram(t, "npm", "node")
	p.env = []string{"npm_config_cache=" + filepath.Join(p.dir, "cache"), "npm_config_update_notifier=false", "npm_config_fund=false", "npm_config_audit=false"}
	if out, err := tryRun(p.dir, "npm", "view", "express@4", "name"); err != nil {
		t.Skip("no package registry: ", firstLines(out, 1))
	}
	p.sh(`mkdir app && cd app && npm init -y > /dev/null && npm install --loglevel=warn express@4
		node -e 'require("express")(); console.log("loaded")' | grep -qx loaded
		npm ls > /dev/null && rm -rf node_modules && npm ci --loglevel=warn --prefer-offline && npm ls > /dev/null
		npm cache verify > /dev/null
		npm install --loglevel=warn left-pad@1.2.0 && npm uninstall --loglevel=warn left-pad && test ! -e node_modules/left-pad`)
}

// TestPostgres runs a database server on a mount, as the user it runs as everywhere, and kills it under load.
func TestPostgres(t *testing.T) {
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	account, err := user.Lookup("postgres")
	if len(bins) == 0 || err != nil {
		t.Skip("no postgresql here")
	}
	if !full {
		t.Skip("in the whole run only")
	}
	uid, _ := strconv.Atoi(account.Uid)
	gid, _ := strconv.Atoi(account.Gid)
	as := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	a := newNode(t, "a", "", "--allow-other")
	figures := map[string]string{}
	for _, where := range []string{"natively", "on the mount"} {
		t.Run(where, func(t *testing.T) {
			// Not t.TempDir: the path of a socket has to be short, and postgres may enter.
			base, err := os.MkdirTemp("", "forever-pg-")
			must(t, err)
			t.Cleanup(func() { must(t, os.RemoveAll(base)) })
			must(t, os.Chown(base, uid, gid))
			dir := filepath.Join(base, "pg")
			if where != "natively" {
				// The test's directories let nobody else in, so the mount is reached under another name too.
				bound := filepath.Join(base, "mnt")
				must(t, os.Mkdir(bound, 0o755))
				must(t, syscall.Mount(a.mnt, bound, "", syscall.MS_BIND, ""))
				t.Cleanup(func() { must(t, syscall.Unmount(bound, syscall.MNT_DETACH)) })
				dir = filepath.Join(bound, "pg")
			}
			must(t, os.Mkdir(dir, 0o755))
			must(t, os.Chown(dir, uid, gid))
			p := &place{t: t, dir: dir, as: as, env: []string{"PATH=" + filepath.Dir(bins[len(bins)-1]) + ":/usr/bin:/bin", "PGHOST=" + base, "PGDATA=" + filepath.Join(dir, "db"), "PGUSER=postgres", "LC_ALL=C", "TMPDIR=" + base, "HOME=" + base}}
			figures[where] = runPostgres(t, p, base)
		})
	}
	t.Logf("natively: %s", figures["natively"])
	t.Logf("on the mount: %s; peak RSS of the node %d MiB", figures["on the mount"], a.rss()>>20)
}

// runPostgres makes a cluster, works on it, kills its server and looks whether all is there.
func runPostgres(t *testing.T, p *place, sock string) string {
	t.Helper()
	init := timed(func() {
		p.sh(`initdb -k -A trust --no-instructions > initdb.out 2>&1; ! grep -iE 'warn|error|fatal' initdb.out`)
	})
	p.sh(`cat >> db/postgresql.conf <<EOF
listen_addresses = ''
unix_socket_directories = '` + sock + `'
max_wal_size = 256MB
wal_compression = off
logging_collector = off
EOF`)
	start := func() { p.sh(`pg_ctl -w -t 120 -l server.log start > /dev/null`) }
	start()
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			cmd := exec.Command("sh", "-c", `kill -QUIT $(head -1 "$PGDATA/postmaster.pid")`)
			cmd.Env, cmd.SysProcAttr = p.env, &syscall.SysProcAttr{Credential: p.as}
			_ = cmd.Run()
		}
	})
	load := timed(func() {
		p.sh(`pgbench -i -q -s "$1" 2> init.err; ! grep -iE 'warn|error|fatal' init.err`, strconv.Itoa(1))
	})
	bench := p.sh(`pgbench -n -c 2 -j 2 -T 5`)
	tps := regexp.MustCompile(`tps = ([0-9.]+)`).FindStringSubmatch(bench)
	if len(tps) == 0 {
		t.Fatalf("pgbench: %s", bench)
	}
	p.sh(`createdb copy && pg_dump postgres | psql -q -v ON_ERROR_STOP=1 copy > /dev/null`)
	killPostgres(t, p)
	recovery := timed(start)
	// What pgbench does keeps these sums equal in every transaction.
	sums := strings.Fields(p.sh(`psql -At -F ' ' -c 'select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches), (select sum(tbalance) from pgbench_tellers), (select coalesce(sum(delta), 0) from pgbench_history), (select count(*) from pgbench_accounts)'`))
	if len(sums) != 5 || sums[0] != sums[1] || sums[1] != sums[2] || sums[2] != sums[3] || sums[4] != "100000" {
		t.Errorf("after kill -9 the sums are %q", sums)
	}
	p.sh(`psql -q -c 'create extension amcheck' && pg_amcheck --install-missing --heapallindexed postgres && psql -q -c 'vacuum full' && psql -q -c 'reindex database postgres' && pg_amcheck --install-missing copy`)
	p.sh(`pg_ctl -w -t 120 -m fast stop > /dev/null && pg_checksums --check > checksums.out && grep -q 'Bad checksums: *0' checksums.out`)
	stopped = true
	log := p.sh(`cat server.log`)
	for line := range strings.Lines(log) {
		if regexp.MustCompile(`WARNING|ERROR|PANIC|FATAL`).MatchString(line) && !expected(line) {
			t.Errorf("server log: %s", line)
		}
	}
	return fmt.Sprintf("initdb %.2f s, pgbench -i %.2f s, %s transactions/s, start after kill -9 %.2f s", init.Seconds(), load.Seconds(), tps[1], recovery.Seconds())
}

// expected reports whether a line of the server's log comes from the kill itself.
func expected(line string) bool {
	return slices.ContainsFunc([]string{"terminating connection", "the database system is", "was terminated by signal 9"}, func(s string) bool { return strings.Contains(line, s) })
}

// killPostgres kills every process of the server while transactions are under way.
func killPostgres(t *testing.T, p *place) {
	t.Helper()
	bench := exec.Command("pgbench", "-n", "-c", "2", "-T", "30")
	bench.Path = filepath.Join(strings.TrimPrefix(strings.SplitN(p.env[0], ":", 2)[0], "PATH="), "pgbench")
	bench.Env, bench.SysProcAttr = p.env, &syscall.SysProcAttr{Credential: p.as}
	must(t, bench.Start())
	time.Sleep(2 * time.Second) // transactions are under way
	pid, err := strconv.Atoi(strings.TrimSpace(p.sh(`head -1 db/postmaster.pid`)))
	must(t, err)
	children := strings.Fields(run(t, "", "ps", "-o", "pid=", "--ppid", strconv.Itoa(pid)))
	for _, c := range append([]string{strconv.Itoa(pid)}, children...) {
		n, err := strconv.Atoi(c)
		must(t, err)
		if err := syscall.Kill(n, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Error(err)
		}
	}
	_ = bench.Wait() // it loses its connections
	until(t, 20*time.Second, "the end of the server", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
}
