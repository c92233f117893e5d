package imagestore

import (
	"crypto/rand"
	"fmt"
	"strings"
)

const (
	maxIDLen = 128
	idRule   = "an id is 1 to 128 characters of A-Z a-z 0-9 - _ . ~, " +
		"begins with a letter, a digit or _, does not end with a dot and is not a Windows device or short name"
)

// NewID returns a random id of 26 characters. Its 128 bits or more of randomness
// make it unique and impossible to guess.
func NewID() string { return rand.Text() }

// CheckID returns nil if id can name an image, and otherwise an error that says
// what is wrong and matches [ErrInvalidID].
//
// An id is 1 to 128 characters of A-Z a-z 0-9 - _ . ~ (the unreserved characters
// of RFC 3986), the first a letter, a digit or _, the last not a dot. Names of
// Windows devices (CON, nul.png) and of the form of Windows short names
// (IMAGES~1) are refused on every platform. So a store can move between
// platforms, and no id reaches another id's image. Ids are case-sensitive. On a
// filesystem that is not, two ids that differ only in case are one image.
func CheckID(id string) error {
	bad := func(format string, args ...any) error {
		return &detailedError{kind: ErrInvalidID, detail: fmt.Sprintf(format, args...) + "; " + idRule}
	}
	switch {
	case id == "":
		return bad("it is empty")
	case len(id) > maxIDLen:
		return bad("it is %d bytes long", len(id))
	case !isAlphanumeric(id[0]) && id[0] != '_':
		return bad("it begins with %q", id[:1])
	case id[len(id)-1] == '.':
		return bad("it ends with a dot")
	}
	for i := range len(id) {
		if !isIDChar(rune(id[i])) {
			return bad("it has %q at position %d", id[i:i+1], i)
		}
	}
	base, _, _ := strings.Cut(id, ".")
	if isDevice(base) {
		return bad("Windows keeps %q for a device", base)
	}
	if isShortName(base) {
		return bad("Windows may use %q as the short name of another file", base)
	}
	return nil
}

// isIDChar reports whether an id may have c, wherever it is.
func isIDChar(c rune) bool {
	return c < 0x80 && (isAlphanumeric(byte(c)) || strings.IndexByte("-_.~", byte(c)) >= 0)
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || isDigit(c)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isDevice reports whether Windows opens a device under this name, whatever its
// extension.
func isDevice(base string) bool {
	if len(base) > 4 {
		return false
	}
	switch strings.ToUpper(base) {
	case "CON", "PRN", "AUX", "NUL":
		return true
	}
	if len(base) != 4 || !isDigit(base[3]) {
		return false
	}
	port := strings.ToUpper(base[:3])
	return port == "COM" || port == "LPT"
}

// isShortName reports whether base has the form of the 8.3 aliases of Windows. A
// file of that name may open another one, such as .staging as STAGIN~1.
func isShortName(base string) bool {
	stem, number, found := strings.Cut(base, "~")
	return found && len(base) <= 8 && stem != "" && number != "" && strings.Trim(number, "0123456789") == ""
}
