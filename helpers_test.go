package imagestore_test

import (
	"bytes"
	"image"
	"image/png"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/client"
	"github.com/ba692904/imagestore/internal/memobject"
	"github.com/spf13/afero"
)

// noise returns a PNG of side × side pixels that does not compress and that is
// another one for every seed.
func noise(tb testing.TB, side int, seed uint64) []byte {
	tb.Helper()
	img := image.NewGray(image.Rect(0, 0, side, side))
	r := rand.New(rand.NewPCG(seed, seed))
	for i := range img.Pix {
		img.Pix[i] = byte(r.Uint32())
	}
	var b bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.NoCompression}
	if err := enc.Encode(&b, img); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

type filesystem struct {
	name string
	new  func(tb testing.TB) afero.Fs
}

// filesystems are those that everything must work on.
var filesystems = []filesystem{
	{"OsFs", onDisk},
	{"MemMapFs", func(testing.TB) afero.Fs { return afero.NewMemMapFs() }},
	{"BasePathFs over MemMapFs", func(testing.TB) afero.Fs { return afero.NewBasePathFs(afero.NewMemMapFs(), "/srv/images") }},
	{"CopyOnWriteFs in memory", func(tb testing.TB) afero.Fs { return afero.NewCopyOnWriteFs(onDisk(tb), afero.NewMemMapFs()) }},
	{"CopyOnWriteFs on disk", func(tb testing.TB) afero.Fs {
		return afero.NewCopyOnWriteFs(afero.NewReadOnlyFs(onDisk(tb)), onDisk(tb))
	}},
}

var objectStore = filesystem{"ObjectFs", func(testing.TB) afero.Fs { return memobject.New() }}

func onDisk(tb testing.TB) afero.Fs { return afero.NewBasePathFs(afero.NewOsFs(), tb.TempDir()) }

// serve starts a server for a handler of s. Its log goes to the test's.
func serve(tb testing.TB, s *imagestore.Store, opts *imagestore.HandlerOptions) *httptest.Server {
	tb.Helper()
	var o imagestore.HandlerOptions
	if opts != nil {
		o = *opts
	}
	if o.Logger == nil {
		o.Logger = quiet
	}
	srv := httptest.NewServer(imagestore.NewHandler(s, &o))
	tb.Cleanup(srv.Close)
	return srv
}

var quiet = slog.New(slog.DiscardHandler)

func newClient(tb testing.TB, baseURL string) *client.Client {
	tb.Helper()
	c, err := client.New(baseURL, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// answer is what a test looks at of a response.
type answer struct {
	*http.Response
	body []byte
}

func (a answer) code() string { return a.Header.Get("Imagestore-Error") }

// request sends a request with header fields given in pairs.
func request(tb testing.TB, method, url string, body io.Reader, header ...string) answer {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, url, body)
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return answer{resp, b}
}

// files lists the paths below the root of a filesystem, directories included.
func files(tb testing.TB, fsys afero.Fs) (paths []string) {
	tb.Helper()
	err := afero.Walk(fsys, ".", func(path string, _ os.FileInfo, err error) error {
		if path != "." {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return paths
}
