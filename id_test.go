package imagestore_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ba692904/imagestore"
)

func TestCheckID(t *testing.T) {
	t.Parallel()
	for _, id := range []string{
		"TestPost", "68faf55b66e7685d4e5a7ab", "a", "_", "0", "a.b", "a-_.~9", "A~", "_.x", strings.Repeat("z", 128),
		"CONSOLE", "nula", "com", "com10", "COMX", "lpt", "a.con", "con_", "x~y", "image~1234567", "abcdefghi~1", "a~1b", "IMAGES~12", imagestore.NewID(),
	} {
		if err := imagestore.CheckID(id); err != nil {
			t.Errorf("%q: got %v, want nil", id, err)
		}
	}
	for _, id := range []string{
		"", ".", "..", "...", ".staging", "a/b", "/", `a\b`, "a:b", "a b", " a", "a%2Fb", "a\x00", "a\n", "é", "a\xff", "-a", "~a", ".a", "a.", "a..",
		"con", "CON", "Prn.png", "aux.x.y", "NUL", "nul.png", "com0", "COM1", "lpt9", "LPT5.png", "STAGIN~1", "a~1", "IMAGE~12.png",
		strings.Repeat("z", 129), "a?b", "a#b", "a*b", "a;b", "a+b", "a@b",
	} {
		if err := imagestore.CheckID(id); !errors.Is(err, imagestore.ErrInvalidID) || !strings.Contains(err.Error(), "an id is 1 to 128 characters") {
			t.Errorf("%q: got %v, want ErrInvalidID with the rule", id, err)
		}
	}
}

func TestNewID(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 1000 {
		id := imagestore.NewID()
		if err := imagestore.CheckID(id); err != nil || seen[id] {
			t.Fatalf("got %q, %v, seen before: %v, want a new valid id", id, err, seen[id])
		}
		seen[id] = true
	}
}
