package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/afero"
)

// An ObjectFs is a filesystem on top of an object store. There a file comes
// into being whole, in one step that can be made to depend on what is stored
// under its name, Rename is a copy, and directories are only prefixes of names.
// A [Store] on an ObjectFs proves an upload in a temporary file of the operating
// system and then calls PutObject once. It makes no directories, renames
// nothing, and of the methods of [afero.Fs] calls only Open, Stat and Remove.
//
// The [os.FileInfo] of its files have one more method, ETag() string: the
// strong entity tag (RFC 9110, section 8.8.3), with its quotes, that the object
// store gives the object. Images have this one, rather than one made of their
// modification time; where it is made of the bytes, as with S3, versions with the
// same bytes are one version to IfMatch. Errors for want of the object store
// itself match [ErrUnavailable].
type ObjectFs interface {
	afero.Fs

	// PutObject makes a file of all that body holds. If what is stored under
	// the name at that very moment, by whomever, is not as cond demands, which
	// is the zero value, that of IfAbsent or of IfMatch with one ETag, nothing
	// is changed and the error matches ErrPrecondition. Nothing is changed
	// either after any other error, but for one: when it is not known whether
	// the object store has done it, the error matches ErrUnavailable.
	PutObject(ctx context.Context, name string, body io.ReadSeeker, cond Precondition) (os.FileInfo, error)

	// ListObjects iterates over the files whose names come after the one
	// given, in the order of the bytes of their names. The Name of the
	// os.FileInfo is the whole name. After an error it ends.
	ListObjects(ctx context.Context, after string) iter.Seq2[os.FileInfo, error]
}

// createTemp is create for a Store on an ObjectFs.
func (u *upload) createTemp() error {
	f, err := os.CreateTemp("", "imagestore-")
	if err != nil {
		return err
	}
	// Where an open file can be removed, a crash leaves nothing behind.
	// Elsewhere discard does it.
	_ = os.Remove(f.Name())
	u.fs, u.f, u.name = afero.NewOsFs(), f, f.Name()
	return nil
}

// putObject publishes an upload that has passed. The object store decides about
// conditions, so an upload needs no lock. etag is that of the image that was there when
// conds were looked at.
func (s *Store) putObject(ctx context.Context, id string, u *upload, etag string, conds []Precondition) (info Info, replaced bool, err error) {
	for range 100 { // an image hardly changes more often meanwhile
		var cond Precondition
		switch {
		case !conditional(conds):
		case etag == "":
			cond = IfAbsent()
		default:
			cond = IfMatch(etag)
		}
		if _, err := u.f.Seek(0, io.SeekStart); err != nil {
			return Info{}, false, err
		}
		fi, err := s.objects.PutObject(ctx, imagePath(id), u.f, cond)
		switch {
		case err == nil && fi.Size() != u.size:
			return Info{}, false, fmt.Errorf("the object store kept %d of %d bytes", fi.Size(), u.size)
		case err == nil:
			return objectInfo(id, fi), etag != "", nil
		case !errors.Is(err, ErrPrecondition):
			return Info{}, false, err
		}
		now, _, err := s.current(id, conds) // they may hold for what is there now too
		if err != nil {
			return Info{}, false, err
		}
		etag = now.ETag
	}
	return Info{}, false, &fault{kind: ErrPrecondition, detail: "the image changes too often"}
}

// deleteObject deletes an image that is there, as conds demand.
func (s *Store) deleteObject(id string, conds []Precondition) error {
	if conditional(conds) {
		return &fault{kind: ErrUnsupported, detail: "an object store deletes without conditions, and another process may put a new version in between; delete without one"}
	}
	return notFound(s.fs.Remove(imagePath(id)))
}

// allObjects is All on an ObjectFs, beginning after a name.
func (s *Store) allObjects(ctx context.Context, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for fi, err := range s.objects.ListObjects(ctx, after) {
			if err != nil {
				wrap("list", "", &err)
				yield(Info{}, err)
				return
			}
			id, isImage := strings.CutSuffix(fi.Name(), "/"+imageFile)
			if isImage && CheckID(id) == nil && !yield(objectInfo(id, fi), nil) {
				return
			}
		}
	}
}

// pageObjects is page on an ObjectFs. It reads only as many names as it needs:
// their order is that of the ids, but for an id with which another one begins
// and goes on with - or a dot. These come before the / of the shorter one's
// name, so it may still be ahead, and is asked for.
func (s *Store) pageObjects(ctx context.Context, after string, limit int) (page []Info, more bool, err error) {
	for info, err := range s.allObjects(ctx, after) {
		if err != nil {
			return nil, false, err
		}
		if info.ID > after {
			page = append(page, info)
		}
		if more = len(page) > limit; more {
			break
		}
	}
	byID := func(a, b Info) int { return strings.Compare(a.ID, b.ID) }
	if more {
		read := page[limit].ID
		last := slices.MaxFunc(page, byID).ID
		for i, c := range last {
			shorter := last[:i]
			if c != '-' && c != '.' || shorter <= after || shorter+"/" <= read+"/" || CheckID(shorter) != nil {
				continue
			}
			info, _, err := s.stat(shorter)
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				wrap("list", shorter, &err)
				return nil, false, err
			}
			page = append(page, info)
		}
	}
	slices.SortFunc(page, byID)
	return page[:min(limit, len(page))], more, nil
}

func objectInfo(id string, fi os.FileInfo) Info {
	info := Info{ID: id, Size: fi.Size(), ModTime: fi.ModTime().UTC().Truncate(time.Second)}
	if tagged, ok := fi.(interface{ ETag() string }); ok {
		info.ETag = tagged.ETag()
	}
	return info
}
