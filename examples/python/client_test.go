package python_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

// python returns an interpreter that has requests.
func python(t *testing.T) string {
	for _, name := range []string{"/usr/bin/python3", "python3", "python"} {
		if exec.Command(name, "-c", "import requests").Run() == nil {
			return name
		}
	}
	t.Skip("there is no Python with requests; on Debian, apt-get install python3-requests")
	return ""
}

// TestClient runs the client as it stands. To be sure of a free port, the store
// poses as an HTTP proxy: requests goes to it with every URL, whatever its port.
func TestClient(t *testing.T) {
	interpreter := python(t)
	dir := t.TempDir()
	var calls []string
	h := imagestore.NewHandler(imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), filepath.Join(dir, "images")), nil), nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls = append(calls, r.Method+" "+r.URL.Path)
		h.ServeHTTP(w, r)
		if r.Method == http.MethodPost {
			if _, err := os.Stat(filepath.Join(dir, "images", "TestPost", "image.png")); err != nil {
				t.Errorf("after POST: %v", err)
			}
		}
	}))
	defer server.Close()
	script, err := filepath.Abs("client.py")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("test_image.png")
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL+"/images/68faf55b66e7685d4e5a7ab", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()

	cmd := exec.Command(interpreter, script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "http_proxy="+server.URL, "no_proxy=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "TestGet", "test_image.png")); err != nil || !bytes.Equal(got, b) {
		t.Errorf("GET brought %d bytes, %v", len(got), err)
	}
	if _, err := os.Stat(filepath.Join(dir, "images", "TestPost")); !os.IsNotExist(err) {
		t.Errorf("after DELETE the directory is still there: %v", err)
	}
	if len(calls) != 4 {
		t.Errorf("the store saw %q", calls)
	}
}
