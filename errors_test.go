package imagestore_test

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/ba692904/imagestore"
)

func TestErrorText(t *testing.T) {
	t.Parallel()
	s := imagestore.New(onDisk(t), nil)
	_, err := s.Get(t.Context(), "none")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want the cause %v", err, fs.ErrNotExist)
	}
	if want := `imagestore: get "none": no such image: `; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %q, want it to begin with %q", err, want)
	}
	_, err = s.Put(t.Context(), "a", io.MultiReader())
	if want := `imagestore: put "a": unsupported image type: `; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %q, want it to begin with %q", err, want)
	}
}

// TestErrorForCode pins the codes, which never change.
func TestErrorForCode(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]error{
		"invalid_id":          imagestore.ErrInvalidID,
		"bad_request":         imagestore.ErrBadRequest,
		"digest_mismatch":     imagestore.ErrDigestMismatch,
		"read_only":           imagestore.ErrReadOnly,
		"not_found":           imagestore.ErrNotFound,
		"precondition_failed": imagestore.ErrPreconditionFailed,
		"too_large":           imagestore.ErrTooLarge,
		"unsupported_type":    imagestore.ErrUnsupportedType,
		"invalid_image":       imagestore.ErrInvalidImage,
		"internal":            imagestore.ErrInternal,
		"not_durable":         imagestore.ErrNotDurable,
		"not_implemented":     imagestore.ErrNotImplemented,
		"too_many_uploads":    imagestore.ErrTooManyUploads,
		"unavailable":         imagestore.ErrUnavailable,
		"no_space":            imagestore.ErrNoSpace,
		"nonsense":            nil,
		"":                    nil,
	} {
		if got := imagestore.ErrorForCode(code); got != want {
			t.Errorf("code %q: got %v, want %v", code, got, want)
		}
	}
	for _, code := range []string{"unknown_path", "method_not_allowed", "request_timeout", "range_not_satisfiable"} {
		if imagestore.ErrorForCode(code) == nil {
			t.Errorf("code %q: got nil, want an error", code)
		}
	}
}
