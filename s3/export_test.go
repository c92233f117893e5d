package s3

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/ba692904/imagestore"
)

var ErrChanged = errChanged

const MaxTries = maxTries

// SetPatience sets after what time without a byte the service is given up.
func (d *Driver) SetPatience(limit time.Duration) { d.patience = limit }

// PutObject sends one PUT. cond is one that the service decides, or none.
func (d *Driver) PutObject(ctx context.Context, id string, content io.ReadSeeker, cond imagestore.Condition) (imagestore.Info, error) {
	p, exact := exactPlan(cond)
	if !exact && !cond.IsZero() {
		panic("the service cannot decide this condition")
	}
	return d.put(ctx, id, imagestore.Meta{Type: "image/png", Width: 1, Height: 2}, content, p)
}

// Remove sends one DELETE.
func (d *Driver) Remove(ctx context.Context, id string) error { return d.remove(ctx, id) }

// TempFile returns the file of an upload.
func TempFile(u imagestore.Upload) *os.File { return u.(*upload).f }

// UploadTo returns an upload into f.
func (d *Driver) UploadTo(f *os.File) imagestore.Upload { return &upload{d: d, f: f} }
