package difftest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ba692904/imagestore/internal/verify"
)

//go:embed show.py
var showScript string

// A shown is what a decoder that is not ours makes of a file.
type shown struct {
	Error       string
	Format      string
	Frames      int
	Orientation int    // in Exif
	Shown       string // identifies the pixels and everything else that decides how they look
}

// A pillow decodes with Python's Pillow, which has libjpeg-turbo, libpng and libwebp.
type pillow struct {
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
}

const python = "/usr/bin/python3"

func startPillow(t *testing.T) *pillow {
	t.Helper()
	p := new(pillow)
	p.start(t)
	t.Cleanup(p.stop)
	return p
}

func (p *pillow) stop() {
	p.in.Close()
	p.cmd.Wait() // it may have crashed
}

func (p *pillow) start(t *testing.T) {
	t.Helper()
	cmd := exec.Command(python, "-c", showScript)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.in, p.out, p.cmd = in, bufio.NewReader(out), cmd
}

func (p *pillow) show(t *testing.T, path string) (s shown) {
	t.Helper()
	if _, err := fmt.Fprintln(p.in, path); err != nil {
		t.Fatal(err)
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil { // some files crash it
		p.stop()
		p.start(t)
		return shown{Error: "Pillow crashes"}
	}
	if err := json.Unmarshal(line, &s); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return s
}

// looks matches what avifdec and heif-info say about the looks of an image.
var looks = regexp.MustCompile(`(?m)^( \* (Resolution|Bit|Format|Alpha|Range|Color|Transfer|Matrix|ICC)|    \* |image:|  color profile|  alpha channel).*$`)

// decode decodes an AVIF or a HEIC with the tools of its developers.
func decode(t *testing.T, path, mediaType string) shown {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	run := func(tool string, args ...string) (string, error) {
		text, err := exec.Command(tool, args...).CombinedOutput()
		return string(text), err
	}
	var text, pixels string
	out := filepath.Join(dir, "out.y4m") // a format without metadata
	if mediaType == "image/avif" {
		text, err = run("avifdec", "--jobs", "1", path, out)
		if err != nil && strings.Contains(text, "missing mandatory pixi property") { // browsers do not want it
			text, err = run("avifdec", "--jobs", "1", "--no-strict", path, out)
		}
		pixels = digest(t, out)
	} else {
		text, err = run("heif-convert", path, out)
		if pixels = digest(t, out); pixels == "" {
			pixels = digest(t, filepath.Join(dir, "out-1.y4m")) // the primary one of several
		}
		if err == nil && pixels != "" {
			text, err = run("heif-info", path)
		}
	}
	if err != nil || pixels == "" {
		return shown{Error: fmt.Sprintf("%v: %s", err, strings.TrimSpace(text))}
	}
	details := looks.FindAllString(text, -1)
	if mediaType == "image/heic" {
		details = details[:3] // of the primary image
	}
	return shown{
		Format:      strings.ToUpper(strings.TrimPrefix(mediaType, "image/")),
		Orientation: 1, // that of Exif does not count
		Shown:       pixels + strings.Join(details, "\n"),
	}
}

// digest returns a digest of a file, or "" if there is none.
func digest(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// copyOf copies a file as the store would, and returns the bytes to store.
func copyOf(t *testing.T, b []byte, opts verify.Options) (verify.Meta, []byte, error) {
	t.Helper()
	out := bytes.NewBuffer(make([]byte, 0, len(b)+64))
	meta, err := verify.Copy(out, bytes.NewReader(b), opts)
	if e := (*verify.Error)(nil); err != nil && !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error", err)
	}
	return meta, out.Bytes(), err
}

// collection returns the files of the collection, and checks that the tools are there.
func collection(t *testing.T) (paths []string) {
	t.Helper()
	root := os.Getenv("IMAGE_COLLECTION")
	if root == "" {
		t.Skip("set IMAGE_COLLECTION to a directory of images, good and bad; .ci/run takes those of some source packages")
	}
	if err := exec.Command(python, "-c", "import PIL").Run(); err != nil {
		t.Skip("Pillow is missing: apt-get install python3-pil")
	}
	for _, tool := range []string{"avifdec", "heif-convert", "heif-info", "exiftool"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is missing: apt-get install libavif-bin libheif-examples libimage-exiftool-perl", tool)
		}
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	return paths
}
