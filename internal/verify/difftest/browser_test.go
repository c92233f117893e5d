package difftest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

// shownImages returns a small image of each kind that matters to clients.
func shownImages(t *testing.T) map[string][]byte {
	t.Helper()
	images := make(map[string][]byte)
	for _, dir := range []string{"shown", "webp", "isobmff"} {
		paths, err := filepath.Glob("../testdata/" + dir + "/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if filepath.Ext(path) != ".md" {
				images[dir+"-"+filepath.Base(path)] = b
			}
		}
	}
	if len(images) < 25 {
		t.Fatalf("got %d images, want at least 25", len(images))
	}
	return images
}

// A served is an image in both stores of newServer.
type served struct {
	stored   imagestore.PutResult
	bytes    []byte
	stripped imagestore.PutResult
}

// newServer serves the images from a store at /images/, and without metadata at
// /stripped/images/.
func newServer(t *testing.T) (http.Handler, map[string]served) {
	t.Helper()
	mux := http.NewServeMux()
	put := func(path string, strip bool) func(id string, b []byte) imagestore.PutResult {
		store := imagestore.New(afero.NewMemMapFs(), &imagestore.Options{Formats: imagestore.Formats(), StripMetadata: strip, VerifyPixels: true})
		mux.Handle(path+"/images/", http.StripPrefix(path, imagestore.NewHandler(store, nil)))
		return func(id string, b []byte) imagestore.PutResult {
			info, err := store.Put(t.Context(), id, bytes.NewReader(b))
			if err != nil {
				t.Fatalf("%s: got %v, want it taken", id, err)
			}
			return info
		}
	}
	plain, stripping := put("", false), put("/stripped", true)
	images := make(map[string]served)
	for id, b := range shownImages(t) {
		images[id] = served{plain(id, b), b, stripping(id, b)}
	}
	return mux, images
}

// browse runs a script in Chromium, in a page of a server that h is. The script's
// function run returns a promise of the result.
func browse(t *testing.T, h http.Handler, script string, result any) {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is missing: apt-get install chromium")
	}
	results := make(chan []byte, 1)
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.HandleFunc("GET /page.html", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, `<!DOCTYPE html><script>%s
			run().then(r => JSON.stringify(r), e => JSON.stringify("" + e)).then(r => fetch('/result', {method: 'POST', body: r}))</script>`, script)
	})
	mux.HandleFunc("POST /result", func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		results <- b
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0",
		"--user-data-dir="+t.TempDir(), srv.URL+"/page.html")
	stderr := new(bytes.Buffer)
	cmd.Stderr = stderr
	cmd.WaitDelay = 10 * time.Second // for its children
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case b := <-results:
		cmd.Process.Signal(os.Interrupt)
		<-ended
		if err := json.Unmarshal(b, result); err != nil {
			t.Fatalf("got %s from the browser, %v", b, err)
		}
	case err := <-ended:
		t.Fatalf("chromium: %v, %s", err, stderr)
	}
}

// loadScript has the function load, which returns an image that is wholly decoded.
const loadScript = `
	async function load(src) {
		const image = new Image()
		image.src = src
		await image.decode()
		return image
	}
`

// TestBrowser shows images of every format in Chromium. Each must be as large as the
// store says, of the type that it says, and look the same without metadata. Chromium
// takes HEIC only on some systems.
func TestBrowser(t *testing.T) {
	h, images := newServer(t)
	var ids []string
	for id, s := range images {
		if s.stored.Type != string(imagestore.HEIC) {
			ids = append(ids, id)
		}
	}
	list, err := json.Marshal(ids)
	if err != nil {
		t.Fatal(err)
	}
	type seen struct {
		Size, Type, Pixels string
		Painted            bool
	}
	var got map[string]struct{ Stored, Stripped seen }
	browse(t, h, loadScript+`
		async function see(src) {
			const type = (await fetch(src)).headers.get('Content-Type')
			const image = await load(src)
			const canvas = document.createElement('canvas')
			canvas.width = image.naturalWidth
			canvas.height = image.naturalHeight
			const context = canvas.getContext('2d')
			context.drawImage(image, 0, 0)
			const pixels = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer)
			return {
				size: image.naturalWidth + ' x ' + image.naturalHeight,
				type: type,
				painted: pixels.some(p => p !== 0),
				pixels: pixels.join(),
			}
		}
		async function run() {
			const all = {}
			for (const id of `+string(list)+`) {
				all[id] = {stored: await see('/images/' + id), stripped: await see('/stripped/images/' + id)}
			}
			return all
		}`, &got)
	for _, id := range ids {
		stored, stripped := got[id].Stored, got[id].Stripped
		if want := fmt.Sprintf("%d x %d", images[id].stored.Width, images[id].stored.Height); stored.Size != want {
			t.Errorf("%s: got %s in the browser, want %s", id, stored.Size, want)
		}
		if stored.Type != images[id].stored.Type || !strings.HasPrefix(stored.Type, "image/") {
			t.Errorf("%s: got the type %s, want %s", id, stored.Type, images[id].stored.Type)
		}
		if !stored.Painted {
			t.Errorf("%s: got no pixels in the browser, want a picture", id)
		}
		if stripped != stored {
			t.Errorf("%s: stripped: got %.80v, want %.80v as before", id, stripped, stored)
		}
	}
}

// TestFetch fetches images of every format with curl and with requests.
func TestFetch(t *testing.T) {
	h, images := newServer(t)
	srv := httptest.NewServer(h)
	defer srv.Close()
	var ids []string
	for id := range images {
		ids = append(ids, id)
	}
	// Both write each image to a file, and its type to a line of their output.
	for name, command := range map[string]func() []string{
		"curl": func() []string {
			args := []string{"curl", "-sS", "--fail", "-w", "%{content_type}\\n"}
			for _, id := range ids {
				args = append(args, "-o", id, srv.URL+"/images/"+id)
			}
			return args
		},
		"requests": func() []string {
			return append([]string{python, "-c", `
import sys, requests
for id in sys.argv[2:]:
    r = requests.get(sys.argv[1] + id)
    r.raise_for_status()
    open(id, "wb").write(r.content)
    print(r.headers["Content-Type"])
`, srv.URL + "/images/"}, ids...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "requests" && exec.Command(python, "-c", "import requests").Run() != nil {
				t.Skip("requests is missing: apt-get install python3-requests")
			}
			args := command()
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skipf("%s is missing: apt-get install curl python3", args[0])
			}
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Dir = t.TempDir()
			stderr := new(bytes.Buffer)
			cmd.Stderr = stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("got %v, %s", err, stderr)
			}
			types := strings.Fields(string(out))
			if len(types) != len(ids) {
				t.Fatalf("got the types %q, want %d", types, len(ids))
			}
			for i, id := range ids {
				b, err := os.ReadFile(filepath.Join(cmd.Dir, id))
				if want := images[id]; err != nil || types[i] != want.stored.Type || !bytes.Equal(b, want.bytes) {
					t.Errorf("%s: got %d bytes of %s, %v, want the %d of %s", id, len(b), types[i], err, len(want.bytes), want.stored.Type)
				}
			}
		})
	}
}
