package verify

import (
	"fmt"
	"slices"
	"strings"
)

// unsupported says what the stream is that begins with head, which is of no accepted
// format. Its offset is that of the first byte that a PNG does not have there.
func unsupported(r *reader, head []byte, opts Options) error {
	at := 0
	for at < len(head) && at < len(pngSignature) && head[at] == pngSignature[at] {
		at++
	}
	if len(head) > 0 {
		// What is read before an error is all there is to look at.
		head, _ = r.peek(len(pngSignature))
		if s := string(head); strings.HasPrefix(s, "RIFF") || strings.HasSuffix(s, "ftyp") {
			head, _ = r.peek(headSize) // the next bytes name the format
		} else if strings.HasPrefix(strings.TrimLeft(s, "\ufeff \t\r\n"), "<") {
			head, _ = r.peek(1 << 10) // for the root element
		}
	}
	detail := opts.guess(string(head))
	if slices.ContainsFunc(formats, func(f format) bool { return f.begins(head) }) && !isVideo(string(head)) {
		detail += orTake
	}
	return &Error{ErrUnsupportedType, int64(at), detail}
}

// orTake is the advice for an image that the store could take.
const orTake = "; or have the store take it too, with Options.Formats or imaged -formats"

// another refuses an image, such as "a HEIC", that the store could take.
func (o Options) another(name string) string {
	return fmt.Sprintf("it looks like %s; %s", name, o.convert()) + orTake
}

// Advice for an upload that is not accepted.
const (
	original = "send the original again, in binary mode"
	decoded  = "send the decoded bytes"
	picture  = "send the picture itself" // help adds which formats are taken
	convert  = ""                        // help says which formats are taken, and how to convert
)

// lookalikes lists the first bytes of what people send in place of an image.
var lookalikes = []struct{ prefix, name, help string }{
	// The signature was designed to reveal these (section 5.2).
	{"\x89PNG\n\x1a\n", "a PNG damaged by a transfer in text mode (CR LF became LF)", original},
	{"\x89PNG\r\r\n", "a PNG damaged by a transfer in text mode (LF became CR LF)", original},
	{"\x89PNG\n\n", "a PNG damaged by a transfer in text mode (CR became LF)", original},
	{"\x89PNG\r\r", "a PNG damaged by a transfer in text mode (LF became CR)", original},
	{"\tPNG", "a PNG damaged by a 7-bit transfer", original},
	{"\xc2\x89PNG", "a PNG that was converted from Latin-1 to UTF-8", "send its bytes, not text"},
	{"\xef\xbf\xbdPNG", "a PNG that was decoded as UTF-8", "send its bytes, not text"},
	{"iVBORw0K", "a PNG in base64", decoded},
	{"data:", "a data: URL", decoded},
	{"--", "a multipart body", "send it with its own Content-Type, and not inside another"},
	{"version ", "the pointer file of Git LFS", "send the picture itself, after git lfs pull"},
	{"\x00\x00\x00\x00\x00\x00\x00\x00", "a file that has lost its content: it begins with zeros", "send a good copy"},

	{pngSignature, "a PNG", convert},
	{"\xff\xd8\xff", "a JPEG", convert},
	{"GIF8", "a GIF", convert},
	{"BM", "a BMP", convert},
	{"II*\x00", "a TIFF", convert},
	{"MM\x00*", "a TIFF", convert},
	{"\x00\x00\x01\x00", "an icon (ICO)", convert},
	{"8BPS", "a Photoshop document", convert},
	{"\xff\x0a", "a JPEG XL", convert},
	{"\x00\x00\x00\x0cJXL ", "a JPEG XL", convert},
	{"\x8aMNG", "an MNG", convert},
	{"\x8bJNG", "a JNG", convert},
	{"<?xml", "XML", picture},
	{"<!doc", "an HTML page", picture},
	{"<html", "an HTML page", picture},
	{"{", "JSON", picture},
	{"%PDF", "a PDF", convert},
	{"PK\x03\x04", "a ZIP archive", picture},
	{"\x1f\x8b", "gzip", "send the decompressed bytes"},
}

// guess describes what begins with s.
func (o Options) guess(s string) string {
	if s == "" {
		return "the upload is empty; perhaps no file was chosen, or a file was read before and must be rewound"
	}
	if isSVG(s) {
		return "it is an SVG, which is never taken, because it is a program; " + o.convert()
	}
	for _, l := range lookalikes {
		if strings.HasPrefix(s, l.prefix) || l.prefix[0] == '<' && strings.HasPrefix(strings.ToLower(s), l.prefix) {
			return fmt.Sprintf("it looks like %s; %s", l.name, o.help(l.help))
		}
	}
	if name := container(s); name != "" {
		return fmt.Sprintf("it looks like %s; %s", name, o.convert())
	}
	return fmt.Sprintf("it is of no known format; %s: it begins with %q", o.taken(), s[:min(len(s), headSize)])
}

// help completes an advice.
func (o Options) help(advice string) string {
	switch advice {
	case convert:
		return o.convert()
	case picture:
		return picture + "; " + o.taken()
	}
	return advice
}

// convert says how to make an accepted image of another.
func (o Options) convert() string {
	taken := o.taken()
	for _, name := range []string{"PNG", "JPEG", "WebP", "GIF", "AVIF", "HEIC"} {
		if strings.Contains(taken, name) {
			return taken + "; open it and save it as " + name + ", because a new name does not convert it"
		}
	}
	return taken
}

// isSVG reports whether s begins like an SVG: its root element follows at most comments
// and declarations.
func isSVG(s string) bool {
	s = strings.TrimLeft(strings.TrimPrefix(strings.ToLower(s), "\ufeff"), " \t\r\n")
	if !strings.HasPrefix(s, "<") {
		return false
	}
	i := strings.Index(s, "<svg")
	return i == 0 || i > 0 && (strings.HasPrefix(s, "<?xml") || strings.HasPrefix(s, "<!--") || strings.HasPrefix(s, "<!doctype svg"))
}

// container names what is in a RIFF or ISO base media file. It returns "" for any
// other.
func container(s string) string {
	s += strings.Repeat(" ", 12)
	switch brand := s[8:12]; {
	case s[:4] == "RIFF" && brand == "WEBP":
		return "a WebP"
	case s[:4] == "RIFF":
		return "sound or a video (RIFF)"
	case s[4:8] == "ftyp":
		return brandName(brand)
	}
	return ""
}

// isVideo reports whether s begins an ISO base media file that is no AVIF or HEIC.
func isVideo(s string) bool {
	name := container(s)
	return len(s) > 8 && s[4:8] == "ftyp" && name != "an AVIF" && name != "a HEIC" && name != anyHEIF
}
