package imagestore_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// TestPaths tries to leave the store. It sends raw requests, because clients clean
// paths.
func TestPaths(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	root := outside + "/root"
	secret := testimage.PNG(t, 5, 1)
	for _, dir := range []string{outside + "/secret", root + "/.staging"} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/image", secret, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	srv := serve(t, imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), root), nil), nil)
	before := files(t, afero.NewBasePathFs(afero.NewOsFs(), outside))
	for _, id := range []string{
		"..", "../secret", "../../etc", "%2e%2e", "%2e%2e/secret", "..%2fsecret", "%2e%2e%2fsecret", "..%5csecret", `..\secret`,
		"%252e%252e%252fsecret", "..%c0%afsecret", "%c0%ae%c0%ae%c0%afsecret", "%e0%80%ae%e0%80%aesecret", "..%00", "a%00", "a%00/../../secret",
		".staging", "%2estaging", ".staging/image", "STAGIN~1", "a/../../secret", "./secret", "//secret", "/secret", "a/image", "a%2fimage",
		"con", "NUL", "nul.png", "com1", "LPT9.x", "aux.", "a.", "a:b", "a::$DATA", "a%3ab", "a%20", "%20a", "-a", "~a", "a*", "a?b/c", "%", "%zz", "%2",
		strings.Repeat("a", 129), strings.Repeat("a", 5000), strings.Repeat("../", 100) + "etc/passwd", "", "a;b", "a%0d%0aX:y", "caf%c3%a9",
	} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			head := fmt.Sprintf("%s /images/%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", method, id, len(secret))
			status := rawStatus(t, srv, head+string(secret))
			if id == "a?b/c" { // its id is a
				continue
			}
			if status != 400 {
				t.Errorf("%s of %.60q: got %d, want 400", method, id, status)
			}
		}
	}
	after := files(t, afero.NewBasePathFs(afero.NewOsFs(), outside))
	if !slices.Equal(before, after) {
		t.Errorf("got files %v, want %v", after, before)
	}
	for _, target := range []string{"*", "x:y", "http://x/images/..", "//images/a", "/images/../images/a", "/healthz/../images/.."} {
		if status := rawStatus(t, srv, "GET "+target+" HTTP/1.1\r\nHost: x\r\n\r\n"); status != 400 && status != 404 {
			t.Errorf("GET %s: got %d, want 400 or 404", target, status)
		}
	}
}

// TestMounted checks Location under several mount paths.
func TestMounted(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "/api/v1", "/caf%C3%A9"} {
		h := imagestore.NewHandler(imagestore.New(afero.NewMemMapFs(), nil), &imagestore.HandlerOptions{Logger: testhttp.Quiet})
		if prefix != "" {
			h = http.StripPrefix(strings.ReplaceAll(prefix, "%C3%A9", "é"), h)
		}
		srv := httptest.NewServer(h)
		defer srv.Close()
		b := testimage.PNG(t, 3, 1)
		got := testhttp.Request(t, "POST", srv.URL+prefix+"/images/TestPost", bytes.NewReader(b))
		if loc := got.Header.Get("Location"); got.StatusCode != 201 || loc != prefix+"/images/TestPost" {
			t.Errorf("at %q: got %s, Location %q, want 201, %q", prefix, got.Status, loc, prefix+"/images/TestPost")
		}
		got = testhttp.Request(t, "POST", srv.URL+prefix+"/images", bytes.NewReader(b), "If-None-Match", "*")
		var info imagestore.Info
		if err := json.Unmarshal(got.Bytes, &info); err != nil || imagestore.CheckID(info.ID) != nil {
			t.Errorf("POST /images: got %s, %v, want an Info with a valid id", got.Bytes, err)
		}
		if loc := got.Header.Get("Location"); got.StatusCode != 201 || loc != prefix+"/images/"+info.ID || got.Header.Get("ETag") != info.ETag {
			t.Errorf("at %q: got %s, Location %q, ETag %s, want 201 and those of %+v", prefix, got.Status, loc, got.Header.Get("ETag"), info)
		}
		if got := testhttp.Request(t, "GET", srv.URL+got.Header.Get("Location"), nil); !bytes.Equal(got.Bytes, b) {
			t.Errorf("at %q: got %s and another image at the Location, want the one that was posted", prefix, got.Status)
		}
	}
}

// TestNearMisses sends paths that are nearly right. The error says which path is
// meant, as the client would have to send it.
func TestNearMisses(t *testing.T) {
	t.Parallel()
	for _, mount := range []string{"", "/api/v1", "/caf%C3%A9"} {
		h := imagestore.NewHandler(imagestore.New(afero.NewMemMapFs(), nil), &imagestore.HandlerOptions{Logger: testhttp.Quiet})
		srv := testhttp.Serve(t, http.StripPrefix(strings.ReplaceAll(mount, "%C3%A9", "é"), h))
		image := fmt.Sprintf("perhaps you mean %q", mount+"/images/x.png")
		both := fmt.Sprintf("images are at %s/images/{id}, their list is at %s/images", mount, mount)
		for _, test := range []struct {
			path   string
			status int
			code   string
			text   string
		}{
			{"/images/", 400, "invalid_id", "it is empty; " + both},
			{"/images//", 400, "invalid_id", both},
			{"/images/x.png/", 400, "invalid_id", image},
			{"/images//x.png", 400, "invalid_id", image},
			{"/images/x.png//", 400, "invalid_id", image},
			{"/images/x/y", 400, "invalid_id", both},
			{"/images/x/../y", 400, "invalid_id", both},
			{"/image/x.png", 404, "unknown_path", image},
			{"/Images/x.png", 404, "unknown_path", image},
			{"/IMAGES/x.png/", 404, "unknown_path", image},
			{"//images/x.png", 404, "unknown_path", image},
			{"/image", 404, "unknown_path", both},
			{"/Images", 404, "unknown_path", both},
			{"//images", 404, "unknown_path", both},
			{"/imagesx", 404, "unknown_path", both},
			{"/image/.x", 404, "unknown_path", both},
			{"/x.png", 404, "unknown_path", both},
			{"/", 404, "unknown_path", both},
			{"/" + strings.Repeat("x", 5000), 404, "unknown_path", both},
		} {
			for _, method := range []string{"GET", "PUT", "DELETE", "OPTIONS"} {
				got := testhttp.Request(t, method, srv.URL+mount+test.path, nil)
				checkProblem(t, got, test.status, test.code, test.text)
				if len(got.Bytes) > 1000 {
					t.Errorf("%s: got an answer of %d bytes, want a short one", test.path, len(got.Bytes))
				}
			}
		}
	}
}
