package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// sqliteGroup has one process make many transactions in a database with a rollback journal.
func sqliteGroup(sc scale) group {
	return group{name: "sqlite", rows: []row{
		{key: "sqlite", title: fmt.Sprintf("SQLite, %d one-row transactions", sc.Transactions), unit: "tx/s", target: 0.90,
			before: makeTable, run: insertRows},
	}}
}

func sqlite(ctx context.Context, p *place, script string) error {
	cmd := exec.CommandContext(ctx, "sqlite3", "-bail", p.path("db"))
	cmd.Stdin, cmd.Env = strings.NewReader(script), append(os.Environ(), "HOME=/nonexistent")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sqlite3: %w: %s", err, out)
	}
	return nil
}

func makeTable(ctx context.Context, p *place) error {
	return sqlite(ctx, p, "create table t (id integer primary key, v text);\n")
}

func insertRows(ctx context.Context, p *place) (float64, error) {
	n := p.scale.Transactions
	return float64(n), sqlite(ctx, p, strings.Repeat("insert into t (v) values (hex(randomblob(50)));\n", n))
}
