package imagestore_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestDependencies keeps go get small: the module needs afero, and what afero
// needs, and the standard library.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-test", "-f", "{{with .Module}}{{.Path}}{{end}}", "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	modules := strings.Fields(string(out))
	slices.Sort(modules)
	modules = slices.Compact(modules)
	want := []string{"github.com/ba692904/imagestore", "github.com/spf13/afero", "golang.org/x/text"}
	if !slices.Equal(modules, want) {
		t.Errorf("the module depends on %v, not %v", modules, want)
	}
}

// TestImports keeps the root below everything else, and testing out of what
// users build.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".", "./client", "./cmd/imaged").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if packages := strings.Fields(string(out)); slices.Contains(packages, "testing") {
		t.Error("what users build imports testing")
	}
	out, err = exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, p := range strings.Fields(string(out)) {
		inner, ok := strings.CutPrefix(p, "github.com/ba692904/imagestore/")
		if ok && !strings.HasPrefix(inner, "internal/") {
			t.Errorf("the root imports %s", p)
		}
	}
}
