// Package digest reads, writes and checks the digest fields of HTTP (RFC 9530).
//
// It knows the algorithms sha-256 and sha-512. They are the ones that RFC 9530 calls
// active (section 5). Others are ignored, as its sections 2 to 4 allow.
//
//	sent, err := digest.Parse(header["Repr-Digest"])
//	if err != nil {
//		return err // the field is malformed
//	}
//	_, err = io.Copy(dst, digest.NewReader(body, sent))
package digest

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"hash"
	"io"
)

// The algorithms, as fields name them.
const (
	SHA256 = "sha-256"
	SHA512 = "sha-512"
)

// algorithms are in the order of preference.
var algorithms = []struct {
	name string
	size int
	new  func() hash.Hash
}{
	{SHA256, sha256.Size, sha256.New},
	{SHA512, sha512.Size, sha512.New},
}

func isAlgorithm(name string) bool {
	for _, a := range algorithms {
		if a.name == name {
			return true
		}
	}
	return false
}

// Preference is a Want-Repr-Digest that asks for any of the algorithms. Processors
// compute sha-256 faster than sha-512 where they have instructions for it.
const Preference = SHA256 + "=10, " + SHA512 + "=5"

// A Digest is what an algorithm computes of some bytes.
type Digest struct {
	Algorithm string
	Sum       string // the bytes of the hash
}

// String returns the digest as a field has it, such as "sha-256=:MV9b…EMeIP/E=:".
func (d Digest) String() string {
	return d.Algorithm + "=:" + base64.StdEncoding.EncodeToString([]byte(d.Sum)) + ":"
}

// Parse returns the known digests in the lines of a Repr-Digest or Content-Digest
// field. There is at most one of each algorithm.
func Parse(lines []string) ([]Digest, error) {
	values, err := parseDictionary(lines)
	if err != nil {
		return nil, err
	}
	var digests []Digest
	for _, a := range algorithms {
		v, ok := values[a.name]
		switch {
		case !ok:
			continue
		case v.kind != byteSequence:
			return nil, fmt.Errorf("the value of %s is not base64 between two colons", a.name)
		case len(v.bytes) != a.size:
			return nil, fmt.Errorf("the value of %s has %d bytes, not %d", a.name, len(v.bytes), a.size)
		}
		digests = append(digests, Digest{a.name, string(v.bytes)})
	}
	return digests, nil
}

// Preferred returns the known algorithm that the lines of a Want-Repr-Digest or
// Want-Content-Digest field like best. It is "" if they accept none. A malformed field
// accepts none, because such a field is a hint only (RFC 9530, section 4).
func Preferred(lines []string) (algorithm string) {
	values, err := parseDictionary(lines)
	if err != nil {
		return ""
	}
	best := int64(0) // means "not acceptable"
	for _, a := range algorithms {
		if v := values[a.name]; v.kind == integer && v.integer > best && v.integer <= 10 {
			algorithm, best = a.name, v.integer
		}
	}
	return algorithm
}

// A Hash computes the digests of what is written to it.
type Hash struct {
	hashes map[string]hash.Hash
}

// NewHash returns a Hash of known algorithms, each of which may be named several times.
func NewHash(names ...string) *Hash {
	h := &Hash{make(map[string]hash.Hash, len(names))}
	for _, name := range names {
		for _, a := range algorithms {
			if a.name == name && h.hashes[name] == nil {
				h.hashes[name] = a.new()
			}
		}
	}
	return h
}

// Write adds to the hashes. It never fails.
func (h *Hash) Write(p []byte) (int, error) {
	for _, one := range h.hashes {
		one.Write(p)
	}
	return len(p), nil
}

// Reset starts again.
func (h *Hash) Reset() {
	for _, one := range h.hashes {
		one.Reset()
	}
}

// Digest returns the digest of what was written, by an algorithm of the Hash.
func (h *Hash) Digest(algorithm string) Digest {
	return Digest{algorithm, string(h.hashes[algorithm].Sum(nil))}
}

// Check returns a [*MismatchError] unless all digests are those of what was written.
// The Hash must have their algorithms.
func (h *Hash) Check(digests []Digest) error {
	for _, want := range digests {
		if got := h.Digest(want.Algorithm); got != want {
			return &MismatchError{Want: want, Got: got}
		}
	}
	return nil
}

// A MismatchError says that bytes have another digest than they should.
type MismatchError struct{ Want, Got Digest }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("the digest sent is %s, that of the bytes received is %s", e.Want, e.Got)
}

// A Reader reads a stream whose digests are known. It fails with a [*MismatchError]
// in place of io.EOF unless all of them fit.
type Reader struct {
	r    io.Reader
	want []Digest
	hash *Hash
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader, want []Digest) *Reader {
	return &Reader{r, want, HashFor(want)}
}

// HashFor returns a Hash of the algorithms of digests.
func HashFor(digests []Digest) *Hash {
	var names []string
	for _, d := range digests {
		names = append(names, d.Algorithm)
	}
	return NewHash(names...)
}

// Read reads from the stream.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.hash.Write(p[:n])
	if err == io.EOF {
		if mismatch := r.hash.Check(r.want); mismatch != nil {
			err = mismatch
		}
	}
	return n, err
}
