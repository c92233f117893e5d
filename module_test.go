package imagestore_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestDependencies checks that the module depends only on afero, its dependencies
// and the standard library.
func TestDependencies(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "-test", "-f", "{{with .Module}}{{.Path}}{{end}}", "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	modules := strings.Fields(string(out))
	slices.Sort(modules)
	modules = slices.Compact(modules)
	want := []string{"github.com/ba692904/imagestore", "github.com/spf13/afero", "golang.org/x/text"}
	if !slices.Equal(modules, want) {
		t.Errorf("got dependencies %v, want %v", modules, want)
	}
}

// TestImports checks that the root imports only internal packages of the module, and
// that programs do not link package testing.
func TestImports(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".", "./client", "./cmd/imaged").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if packages := strings.Fields(string(out)); slices.Contains(packages, "testing") {
		t.Error("got an import of testing, want none")
	}
	out, err = exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, p := range strings.Fields(string(out)) {
		inner, ok := strings.CutPrefix(p, "github.com/ba692904/imagestore/")
		if ok && !strings.HasPrefix(inner, "internal/") {
			t.Errorf("got an import of %s in the root, want internal packages alone", p)
		}
	}
}
