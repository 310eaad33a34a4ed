package arrows

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/foreverfs/forever/"

// shared are the packages below all others: seams and shapes without a job of
// their own in the product.
var shared = []string{"internal/kv", "internal/fail"}

// arrows says what each package may import of this module besides the shared
// packages; a name covers the packages below it. What is not listed must not
// exist: a new package states its place here first.
var arrows = map[string][]string{
	"chunk":               {},
	"cipher":              {"chunk", "internal/hashtree"},
	"casstore":            {"chunk", "internal/hashtree", "internal/readaround", "internal/writefs"},
	"namespace":           {"chunk", "namespace"},
	"transport":           {"transport"},
	"replica":             {"chunk", "transport", "replica", "internal/lease", "internal/lock"},
	"volume":              {"chunk", "namespace"},
	"fusefs":              {"volume", "namespace"},
	"internal/kv":         {"internal/writefs"},
	"internal/fail":       {},
	"internal/hashtree":   {},
	"internal/lease":      {},
	"internal/lock":       {},
	"internal/lan":        {},
	"internal/readaround": {},
	"internal/sealedfs":   {},
	"internal/writefs":    {},
	"internal/control":    {},
	"internal/arrows":     {},
	"internal/demo":       {},
	"internal/accept":     {},
	"internal/bench":      {},
	"internal/node": {
		"chunk", "cipher", "casstore", "namespace", "transport", "replica", "volume", "fusefs",
		"internal/control", "internal/lan", "internal/lease", "internal/lock", "internal/readaround", "internal/sealedfs", "internal/writefs",
	},
	"cmd/fsmount": {"internal/node", "internal/control"},
}

// exclusive says who alone may import a package from outside this module.
var exclusive = map[string]string{
	"bazil.org/fuse":                "fusefs",
	"github.com/spf13/cobra":        "cmd/fsmount",
	"github.com/hashicorp/yamux":    "transport",
	"github.com/klauspost/compress": "cipher",
	"lukechampine.com/blake3":       "internal/hashtree",
}

type goPackage struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// place returns the entry of the table that covers a package, or "".
func place(pkg string) string {
	best := ""
	for name := range arrows {
		if covers(name, pkg) && len(name) > len(best) {
			best = name
		}
	}
	return best
}

func covers(name, pkg string) bool {
	return pkg == name || strings.HasPrefix(pkg, name+"/")
}

func TestArrows(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		own := place(name)
		if own == "" {
			t.Errorf("package %s has no place in the table of arrows", name)
			continue
		}
		for _, imp := range p.Imports {
			checkImport(t, name, own, imp)
		}
	}
}

func checkImport(t *testing.T, name, own, imp string) {
	t.Helper()
	if inside, ok := strings.CutPrefix(imp, module); ok {
		allowed := append(append([]string{own}, arrows[own]...), shared...)
		for _, a := range allowed {
			if covers(a, inside) {
				return
			}
		}
		t.Errorf("%s must not import %s", name, inside)
		return
	}
	for lib, only := range exclusive {
		if covers(lib, imp) && own != only {
			t.Errorf("%s imports %s, which only %s may", name, lib, only)
		}
	}
}

// TestDependenciesAreExplained holds docs/dependencies.md and the imports together.
func TestDependenciesAreExplained(t *testing.T) {
	text, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{} // module: is imported
	for _, row := range regexp.MustCompile(`(?m)^\| ([a-z.]+\.[a-z]+/[^ ]+) \|`).FindAllStringSubmatch(string(text), -1) {
		explained[row[1]] = false
	}
	for _, p := range listPackages(t) {
		for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			first, _, _ := strings.Cut(imp, "/")
			if !strings.Contains(first, ".") || strings.HasPrefix(imp, module) {
				continue
			}
			known := false
			for m := range explained {
				if covers(m, imp) {
					explained[m], known = true, true
				}
			}
			if !known {
				t.Errorf("%s imports %s, which docs/dependencies.md does not explain", p.ImportPath, imp)
			}
		}
	}
	for m, used := range explained {
		if !used {
			t.Errorf("docs/dependencies.md explains %s, which nothing imports", m)
		}
	}
}

// TestLinksInDocsLead holds relative links in the documentation.
func TestLinksInDocsLead(t *testing.T) {
	root := filepath.Join("..", "..")
	var pages []string
	for _, glob := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, glob))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), l[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", page, l[1])
			}
		}
	}
}
