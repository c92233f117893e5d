package python_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	t.Skip("no Python with requests; on Debian, run apt-get install python3-requests")
	return ""
}

// TestClient runs client.py on an empty store. The port in the URLs of the client may
// be taken. So the store acts as an HTTP proxy, to which requests sends every URL.
func TestClient(t *testing.T) {
	interpreter := python(t)
	dir := t.TempDir()
	image := filepath.Join(dir, "images", "TestPost", "image")
	uploaded, err := os.ReadFile("test_image.png")
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("client.py")
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	h := imagestore.NewHandler(imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), filepath.Join(dir, "images")), nil), nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls = append(calls, r.Method+" "+r.URL.Path)
		h.ServeHTTP(w, r)
		if r.Method == http.MethodPost {
			if got, err := os.ReadFile(image); err != nil || !bytes.Equal(got, uploaded) {
				t.Errorf("after POST: got a file of %d bytes, %v, want the %d bytes of test_image.png", len(got), err, len(uploaded))
			}
		}
	}))
	defer server.Close()

	cmd := exec.Command(interpreter, script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "http_proxy="+server.URL, "no_proxy=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("client.py: %v\n%s", err, out)
	}
	if want := []string{"POST /images/TestPost", "GET /images/TestPost", "DELETE /images/TestPost"}; !slices.Equal(calls, want) {
		t.Errorf("got requests %q, want %q", calls, want)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "TestGet", "test_image.png")); err != nil || !bytes.Equal(got, uploaded) {
		t.Errorf("GET: got %d bytes, %v, want the %d bytes of test_image.png", len(got), err, len(uploaded))
	}
	if _, err := os.Stat(filepath.Dir(image)); !os.IsNotExist(err) {
		t.Errorf("after DELETE: got %v, want no directory TestPost", err)
	}
}

// TestDigests sends digests with requests, in the header of a body and in that of a
// form's part.
func TestDigests(t *testing.T) {
	interpreter := python(t)
	h := imagestore.NewHandler(imagestore.New(afero.NewMemMapFs(), nil), nil)
	server := httptest.NewServer(h)
	defer server.Close()
	const script = `
import base64, hashlib, requests, sys

url, name = sys.argv[1] + "/images/TestPost", sys.argv[2]
image = open(name, "rb").read()
right = "sha-256=:" + base64.b64encode(hashlib.sha256(image).digest()).decode() + ":"
wrong = "sha-256=:" + base64.b64encode(hashlib.sha256(b"").digest()).decode() + ":"

def post(digest):
    with open(name, "rb") as f:
        return requests.post(url, files={"file": ("x.png", f, "image/png", {"Repr-Digest": digest})})

def put(digest):
    with open(name, "rb") as f:
        return requests.put(url, data=f, headers={"Repr-Digest": digest})

for send in post, put:
    send(right).raise_for_status()
    refused = send(wrong)
    assert refused.status_code == 400 and refused.json()["code"] == "digest_mismatch", refused.text

answer = requests.get(url, headers={"Want-Repr-Digest": "sha-256=10"})
assert answer.content == image and answer.headers["Repr-Digest"] == right, answer.headers
`
	if out, err := exec.Command(interpreter, "-c", script, server.URL, "test_image.png").CombinedOutput(); err != nil {
		t.Errorf("got %v, want nil\n%s", err, out)
	}
}

// TestClientFails runs client.py against a server that refuses everything.
func TestClientFails(t *testing.T) {
	interpreter := python(t)
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	script, err := filepath.Abs("client.py")
	if err != nil {
		t.Fatal(err)
	}
	// Each function of the client is run by itself: the first failure ends the script.
	for _, function := range []string{"test_post", "test_get", "test_delete"} {
		t.Run(function, func(t *testing.T) {
			cmd := exec.Command(interpreter, "-c", "import client; client."+function+"()")
			cmd.Dir = t.TempDir()
			cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Dir(script), "PYTHONDONTWRITEBYTECODE=1", "http_proxy="+server.URL, "no_proxy=")
			out, err := cmd.CombinedOutput()
			if err == nil || !bytes.Contains(out, []byte("404 Client Error")) {
				t.Errorf("got %v, want a failure with 404 Client Error\n%s", err, out)
			}
		})
	}
}
