package storetest_test

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ba692904/imagestore/storetest"
	"github.com/spf13/afero"
)

// TestMain runs more tests at once than there are processors, because most wait
// for the disk.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set(strconv.Itoa(max(6, runtime.GOMAXPROCS(0))))
	}
	m.Run()
}

func onDisk(t *testing.T) afero.Fs { return afero.NewBasePathFs(afero.NewOsFs(), t.TempDir()) }

func inMemory(*testing.T) afero.Fs { return afero.NewMemMapFs() }

// TestCoarseTimes runs the suite on filesystems that keep every promise and have
// coarse times. The tests of package imagestore run it on others.
func TestCoarseTimes(t *testing.T) {
	for name, step := range map[string]time.Duration{"1s": time.Second, "2s": 2 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.TestFs(t, func(t *testing.T) afero.Fs { return steps{onDisk(t), step, false} })
		})
	}
}

var probes, promises, files = storetest.Names()

// except returns the names in all that are not in some.
func except(all []string, some ...string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(some, name) })
}

// withoutPut are the subtests that pass even if Put always fails.
var withoutPut = []string{"store/a missing image is not found", "store/bad ids are refused", "files/a directory is no image"}

const (
	followsLinks = "LstatIfPossible follows links"
	renameCopies = "Rename copies"
)

// haveLinks reports whether symbolic links can be made. Windows allows them to some
// users only.
func haveLinks(t *testing.T) bool {
	t.Helper()
	link := filepath.Join(t.TempDir(), "link")
	_ = os.Symlink("file", link)
	_, err := os.Lstat(link)
	return err == nil
}

// broken are filesystems that break a promise: some of afero, and some that are
// broken on purpose.
var broken = []struct {
	name string
	new  func(*testing.T) afero.Fs
	// fails are the subtests that must fail. No others may.
	fails []string
	// says is a part of the output.
	says string
}{
	{
		name:  "ReadOnlyFs",
		new:   func(t *testing.T) afero.Fs { return afero.NewReadOnlyFs(onDisk(t)) },
		fails: append(slices.Concat(probes, except(promises, withoutPut...), except(files, withoutPut...)), "files/a directory is no image"),
		says:  "Put fails: imagestore: put \"large\": the store is read-only",
	}, {
		// It opens a new file for writing only, and then reads it.
		name: "CacheOnReadFs",
		new:  func(t *testing.T) afero.Fs { return afero.NewCacheOnReadFs(onDisk(t), inMemory(t), 0) },
		fails: slices.Concat(except(probes, "filesystem/Mkdir of a directory that is there", "filesystem/LstatIfPossible does not follow links"),
			except(promises, withoutPut...), except(files, withoutPut...)),
		says: "a file cannot be created: read ",
	}, {
		name: "Rename does not replace",
		new:  func(t *testing.T) afero.Fs { return noReplace{onDisk(t)} },
		fails: []string{
			"filesystem/Rename replaces", "filesystem/Rename is atomic", "filesystem/an open file survives being replaced",
			"store/put replaces", "store/an open image stays whole when it is replaced", "store/IfAbsent creates only", "store/IfMatch changes one version only",
			"store/of writers with IfMatch one wins", "store/ETags do not repeat when an image is replaced", "store/readers see whole versions while an image changes",
			"files/uploads leave nothing behind", "files/a second Store sees the images of the first",
		},
		says: "Rename does not replace an existing file: rename from/x to/y: file already exists",
	}, {
		name: renameCopies,
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
			"store/an image that was put can be read", "store/put replaces",
			"store/an open image stays whole when it is replaced",
			"store/IfAbsent creates only", "store/IfMatch changes one version only", "store/of writers with IfMatch one wins",
			"store/ETags do not repeat when an image is replaced", "store/ETags do not repeat when an image is deleted and put again",
			"store/readers see whole versions while an image changes",
			"files/uploads leave nothing behind", "files/a second Store sees the images of the first",
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
		}, except(promises, withoutPut...), except(files, withoutPut...)),
		says: "writes are lost: every Write and Close reported success, but Stat says that the file has 150000 of 150001 bytes",
	}, {
		name: "Remove does nothing",
		new:  func(t *testing.T) afero.Fs { return keeps{onDisk(t)} },
		fails: []string{
			"filesystem/Remove removes a file", "filesystem/Remove removes an empty directory",
			"store/delete removes the image", "store/an open image stays whole when it is deleted", "store/IfMatch changes one version only",
			"store/ETags do not repeat when an image is deleted and put again", "store/readers see whole versions while an image changes", "store/List",
			"files/delete removes the directory", "files/delete leaves the files of others alone", "files/uploads leave nothing behind",
		},
		says: "Remove of a file reports success, but the file is still there",
	}, {
		name:  "errors are hidden",
		new:   func(t *testing.T) afero.Fs { return silent{onDisk(t)} },
		fails: []string{"filesystem/a missing file is reported", "filesystem/a missing parent"},
		says:  "errors are hidden: Rename of a file that is not there reports success",
	}, {
		name: "Sync fails",
		new: func(t *testing.T) afero.Fs {
			return wrapped{onDisk(t), func(f afero.File) afero.File { return badSync{f} }}
		},
		fails: slices.Concat([]string{"filesystem/Sync of a file"}, except(promises, withoutPut...), except(files, withoutPut...)),
		says:  "Sync of a file fails, so that no image can be made durable",
	}, {
		name:  followsLinks,
		new:   func(t *testing.T) afero.Fs { return follows{onDisk(t)} },
		fails: []string{"filesystem/LstatIfPossible does not follow links"},
		says:  "LstatIfPossible follows symbolic links: got mode -rw",
	},
}

// TestBrokenFilesystems runs the suite for each broken filesystem, in a process of
// its own.
func TestBrokenFilesystems(t *testing.T) {
	for _, test := range broken {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.name == followsLinks && !haveLinks(t) {
				t.Skip("there are no symbolic links here")
			}
			if test.name == renameCopies && runtime.GOOS == "windows" {
				t.Skip("on Windows a reader rarely sees a part of a change, because readers wait for changes")
			}
			failed, out := rerun(t, "TestBrokenFilesystem", test.name)
			wantFailures(t, failed, out, test.fails, test.says)
		})
	}
}

// TestBrokenFilesystem runs the suite in the other processes.
func TestBrokenFilesystem(t *testing.T) {
	for _, test := range broken {
		if test.name == os.Getenv(rerunEnv) {
			storetest.TestFs(t, test.new)
			return
		}
	}
	if os.Getenv(rerunEnv) != "" {
		t.Fatal("no such filesystem")
	}
}

// rerunEnv names the environment variable that tells a process what to run.
const rerunEnv = "STORETEST_RERUN"

var failedTest = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+) `)

// rerun runs a test of this package in another process, because a failed subtest
// would fail its parents too. It returns the innermost subtests that failed.
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
		t.Fatalf("got %v and failures %q, want both or neither\n%s", err, failed, out)
	}
	return failed, out
}

// wantFailures compares the subtests that failed with those that must fail.
func wantFailures(t *testing.T, failed []string, out string, want []string, says string) {
	t.Helper()
	ok := true
	for _, name := range want {
		if !slices.Contains(failed, name) {
			ok = false
			t.Errorf("%s: got a pass, want a failure", name)
		}
	}
	for _, name := range failed {
		if !slices.Contains(want, name) {
			ok = false
			t.Errorf("%s: got a failure, want a pass", name)
		}
	}
	if !strings.Contains(out, says) {
		ok = false
		t.Errorf("got an output without %q, want it", says)
	}
	if !ok {
		t.Log(out)
	}
}
