package verify_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCollection compares the verdicts on a collection of files with those of
// pngcheck, a tool of the PNG developers.
func TestCollection(t *testing.T) {
	dir := os.Getenv("PNG_COLLECTION")
	if dir == "" {
		t.Skip("set PNG_COLLECTION to a directory of PNG files, good and bad; .ci/run takes those that come with libpng")
	}
	if _, err := exec.LookPath("pngcheck"); err != nil {
		t.Skip("pngcheck is missing: apt-get install pngcheck")
	}
	// The reasons for different verdicts.
	excused := map[string]string{
		// pngcheck validates ancillary chunks, which decoders may ignore.
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
		verdict := checkBytes(t, b, pixels)
		if err := checkBytes(t, b, structural); err != nil && verdict == nil {
			t.Errorf("%s: structure: got %v, want no error as for pixels", path, err)
		}
		if verdict == nil {
			good++
		} else {
			bad++
		}
		if (verdict == nil) == (checkErr == nil) {
			return nil
		}
		if why := excused[filepath.Base(path)]; why == "" || verdict != nil {
			t.Errorf("%s: got %v, want %s as from pngcheck", path, verdict, strings.TrimSpace(string(out)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files pass, %d do not", good, bad)
	if good < 100 || bad < 2 {
		t.Errorf("got %d good and %d bad files, want at least 100 and 2", good, bad)
	}
}
