package pngproof_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ba692904/imagestore/internal/pngproof"
)

// TestCollection asks pngcheck, a tool of the PNG developers' own, about every
// file of a collection, and compares.
func TestCollection(t *testing.T) {
	dir := os.Getenv("PNG_COLLECTION")
	if dir == "" {
		t.Skip("set PNG_COLLECTION to a directory of PNG files, good and bad; .ci/run takes those that come with libpng")
	}
	if _, err := exec.LookPath("pngcheck"); err != nil {
		t.Skip("there is no pngcheck; on Debian, apt-get install pngcheck")
	}
	// Where the two differ, and why.
	excused := map[string]string{
		// pngcheck looks into ancillary chunks, which decoders may overlook.
		"bad_iCCP.png":               "an ICC profile with a bad name",
		"empty_ancillary_chunks.png": "ancillary chunks that are too short",
	}
	good, bad := 0, 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".png" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		out, checkErr := exec.Command("pngcheck", "-q", path).CombinedOutput()
		deep := proveBytes(t, b, pngproof.Config{Deep: true})
		if shallow := proveBytes(t, b, pngproof.Config{}); shallow != nil && deep == nil {
			t.Errorf("%s passes the deep proof and not the structural one: %v", path, shallow)
		}
		if deep == nil {
			good++
		} else {
			bad++
		}
		if (deep == nil) == (checkErr == nil) {
			return nil
		}
		if why := excused[filepath.Base(path)]; why == "" || deep != nil {
			t.Errorf("%s: the deep proof says %v, pngcheck says %s", path, deep, strings.TrimSpace(string(out)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files pass, %d do not", good, bad)
	if good < 100 || bad < 2 {
		t.Error("that is not much of a collection")
	}
}
