package storetest_test

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ba692904/imagestore/internal/memobject"
	"github.com/ba692904/imagestore/storetest"
	"github.com/spf13/afero"
)

func onDisk(t *testing.T) afero.Fs { return afero.NewBasePathFs(afero.NewOsFs(), t.TempDir()) }

func inMemory(*testing.T) afero.Fs { return afero.NewMemMapFs() }

// TestFilesystems runs the suite on filesystems that keep every promise.
func TestFilesystems(t *testing.T) {
	for name, newFs := range map[string]func(*testing.T) afero.Fs{
		"MemMapFs":                inMemory,
		"OsFs":                    onDisk,
		"CopyOnWriteFs in memory": func(t *testing.T) afero.Fs { return afero.NewCopyOnWriteFs(onDisk(t), inMemory(t)) },
		"CopyOnWriteFs on disk":   func(t *testing.T) afero.Fs { return afero.NewCopyOnWriteFs(onDisk(t), onDisk(t)) },
		"ObjectFs":                func(*testing.T) afero.Fs { return memobject.New() },
		"times in steps of 1s":    func(t *testing.T) afero.Fs { return steps{onDisk(t), time.Second, false} },
		"times in steps of 2s":    func(t *testing.T) afero.Fs { return steps{onDisk(t), 2 * time.Second, false} },
	} {
		t.Run(name, func(t *testing.T) { storetest.TestFs(t, newFs) })
	}
}

var probes, promises = storetest.Names()

// except returns all names but some.
func except(all []string, some ...string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(some, name) })
}

// wanting are filesystems that do not keep every promise, some of afero's own
// and some that are broken on purpose, and how the suite says so.
var wanting = []struct {
	name string
	new  func(*testing.T) afero.Fs
	// fails are the subtests that fail.
	fails []string
	// says is what the output has to say.
	says string
}{
	{
		name:  "ReadOnlyFs",
		new:   func(t *testing.T) afero.Fs { return afero.NewReadOnlyFs(onDisk(t)) },
		fails: slices.Concat(probes, promises),
		says:  "Put fails: imagestore: put \"large\": the store cannot be changed",
	}, {
		// It opens a new file in its base only for writing, and then reads it.
		name: "CacheOnReadFs",
		new:  func(t *testing.T) afero.Fs { return afero.NewCacheOnReadFs(onDisk(t), inMemory(t), 0) },
		fails: slices.Concat(except(probes, "filesystem/Mkdir of a directory that is there"),
			except(promises, "store/what is not there is not found")),
		says: "a file cannot be created: read ",
	}, {
		name: "Rename does not replace",
		new:  func(t *testing.T) afero.Fs { return noReplace{onDisk(t)} },
		fails: []string{
			"filesystem/Rename replaces", "filesystem/Rename is atomic", "filesystem/an open file survives being replaced",
			"store/put replaces", "store/an open image stays whole when it is replaced", "store/of writers with IfMatch one wins",
			"store/ETags do not repeat when an image is replaced", "store/readers see whole versions while an image changes",
			"store/a second Store sees what the first has put",
		},
		says: "Rename does not replace an existing file: rename from/x to/y: file already exists",
	}, {
		name: "Rename copies",
		new:  func(t *testing.T) afero.Fs { return copies{onDisk(t)} },
		fails: []string{
			"filesystem/Rename is atomic", "filesystem/an open file survives being replaced",
			"store/an open image stays whole when it is replaced", "store/readers see whole versions while an image changes",
		},
		says: "a file that is open changes when it is replaced",
	}, {
		name: "Chtimes is ignored and times are coarse",
		new:  func(t *testing.T) afero.Fs { return steps{onDisk(t), 10_000 * time.Hour, true} },
		fails: []string{
			"filesystem/modification times order versions",
			"store/put replaces", "store/delete removes the image and its directory", "store/an open image stays whole when it is replaced",
			"store/of writers with IfMatch one wins", "store/ETags do not repeat when an image is replaced", "store/ETags do not repeat when an image is deleted and put again",
			"store/readers see whole versions while an image changes", "store/a second Store sees what the first has put",
		},
		says: "Chtimes is not kept and modification times are coarse: two versions in a row get the same time",
	}, {
		name: "writes are lost",
		new: func(t *testing.T) afero.Fs {
			return wrapped{onDisk(t), func(f afero.File) afero.File { return forgetful{f} }}
		},
		fails: slices.Concat([]string{
			"filesystem/a file keeps what was written", "filesystem/Rename moves", "filesystem/Rename replaces", "filesystem/Rename is atomic",
			"filesystem/an open file survives being replaced", "filesystem/an open file survives being removed", "filesystem/Seek", "filesystem/ids are names",
		}, except(promises, "store/what is not there is not found")),
		says: "writes are lost: every Write and Close reported success, but Stat says that the file has 150000 of 150001 bytes",
	}, {
		name: "Remove does nothing",
		new:  func(t *testing.T) afero.Fs { return keeps{onDisk(t)} },
		fails: []string{
			"filesystem/Remove removes a file", "filesystem/Remove removes an empty directory",
			"store/delete removes the image and its directory", "store/delete leaves the files of others alone", "store/an open image stays whole when it is deleted",
			"store/of writers with IfMatch one wins", "store/ETags do not repeat when an image is deleted and put again",
			"store/a failed upload leaves the old image and nothing else", "store/a canceled upload leaves the old image and nothing else",
			"store/readers see whole versions while an image changes",
		},
		says: "Remove of a file reports success, but the file is still there",
	}, {
		name:  "errors are hidden",
		new:   func(t *testing.T) afero.Fs { return silent{onDisk(t)} },
		fails: []string{"filesystem/what is missing is reported", "filesystem/a missing parent"},
		says:  "errors are hidden: Rename of a file that is not there reports success",
	}, {
		name: "Sync fails",
		new: func(t *testing.T) afero.Fs {
			return wrapped{onDisk(t), func(f afero.File) afero.File { return badSync{f} }}
		},
		fails: slices.Concat([]string{"filesystem/Sync of a file"}, except(promises, "store/what is not there is not found")),
		says:  "Sync of a file fails, so that no image can be made durable",
	},
}

// TestWantingFilesystems runs the suite in a process of its own for each
// filesystem that is to fail.
func TestWantingFilesystems(t *testing.T) {
	for _, test := range wanting {
		t.Run(test.name, func(t *testing.T) {
			failed, out := rerun(t, "TestWanting", test.name)
			wantFailures(t, failed, out, test.fails, test.says)
		})
	}
}

// TestWanting is what the other processes run.
func TestWanting(t *testing.T) {
	for _, test := range wanting {
		if test.name == os.Getenv(rerunEnv) {
			storetest.TestFs(t, test.new)
			return
		}
	}
	if os.Getenv(rerunEnv) != "" {
		t.Fatal("no such filesystem")
	}
}

// rerunEnv tells another process of this test what to run.
const rerunEnv = "STORETEST_RERUN"

var failedTest = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+) `)

// rerun runs a test of this package in another process, because a test that
// has failed cannot be made to pass, and returns the innermost of the subtests
// that have failed.
func rerun(t *testing.T, test, what string) (failed []string, out string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), rerunEnv+"="+what)
	b, err := cmd.CombinedOutput()
	out = string(b)
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	for _, m := range failedTest.FindAllStringSubmatch(out, -1) {
		failed = append(failed, strings.TrimPrefix(m[1], test+"/"))
	}
	failed = slices.DeleteFunc(failed, func(name string) bool {
		return name == test || slices.ContainsFunc(failed, func(other string) bool { return strings.HasPrefix(other, name+"/") })
	})
	for i := range failed {
		failed[i] = strings.ReplaceAll(strings.ReplaceAll(failed[i], "_", " "), "O EXCL", "O_EXCL")
	}
	if ok := strings.HasSuffix(out, "PASS\n"); (err == nil) != (len(failed) == 0) || (err == nil) != ok {
		t.Fatalf("the process ended with %v and these failures: %q\n%s", err, failed, out)
	}
	return failed, out
}

// wantFailures compares what has failed with what was to fail.
func wantFailures(t *testing.T, failed []string, out string, want []string, says string) {
	t.Helper()
	ok := true
	for _, name := range want {
		if !slices.Contains(failed, name) {
			ok = false
			t.Errorf("this should have failed: %s", name)
		}
	}
	for _, name := range failed {
		if !slices.Contains(want, name) {
			ok = false
			t.Errorf("this should not have failed: %s", name)
		}
	}
	if !strings.Contains(out, says) {
		ok = false
		t.Errorf("nothing says %q", says)
	}
	if !ok {
		t.Log(out)
	}
}
