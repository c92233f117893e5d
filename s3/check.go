package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/ba692904/imagestore"
)

// Check tests that the bucket exists, and that objects can be put and removed in it.
// It also tests that the service decides If-None-Match and If-Match of a PUT. On a
// service that does not, two conditional writers of one version would both win.
// Check sends up to six requests, about a key that no image can have.
func (d *Driver) Check(ctx context.Context) (err error) {
	id := ".check-" + rand.Text()
	_, err = d.Stat(ctx, id)
	switch {
	case err == nil:
		return fmt.Errorf("s3: the service finds an object in bucket %q that was never put", d.name)
	case !errors.Is(err, imagestore.ErrNotFound):
		return fmt.Errorf("s3: looking for a missing object: %w", err)
	}
	defer func() { err = errors.Join(err, d.remove(context.WithoutCancel(ctx), id)) }()
	put := func(p plan) error {
		_, err := d.put(ctx, id, imagestore.Meta{}, strings.NewReader("probe"), p)
		return err
	}
	absent, match := plan{ifNoneMatch: "*"}, plan{ifMatch: `"0"`}
	if err := put(absent); err != nil {
		return fmt.Errorf("s3: putting an object: %w", err)
	}
	for _, test := range []struct {
		header string
		plan   plan
	}{{"If-None-Match", absent}, {"If-Match", match}} {
		switch err := put(test.plan); {
		case err == nil:
			return fmt.Errorf("s3: the service of bucket %q ignores %s: %w", d.name, test.header, imagestore.ErrNotImplemented)
		case !errors.Is(err, imagestore.ErrPreconditionFailed):
			return fmt.Errorf("s3: putting an object with %s: %w", test.header, err)
		}
	}
	return nil
}
