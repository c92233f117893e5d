package verify

import (
	"fmt"
	"strings"
)

// unsupported says what the stream is that begins with head, which is no PNG. Its
// offset is that of the first byte that a PNG does not have there.
func unsupported(r *reader, head []byte) error {
	at := 0
	for at < len(head) && head[at] == pngSignature[at] {
		at++
	}
	if strings.HasPrefix(string(head), "RIFF") || strings.HasSuffix(string(head), "ftyp") {
		if more, err := r.peek(12); err == nil { // the next bytes name the format
			head = more
		}
	}
	return &Error{ErrUnsupportedType, int64(at), guess(string(head))}
}

// Advice for an upload that is not a PNG.
const (
	original = "send the original again, in binary mode"
	decoded  = "send the decoded bytes"
	convert  = "only PNG is taken; open it and save it as PNG, because a new name does not convert it"
	picture  = "send the picture itself; only PNG is taken"
)

// lookalikes lists the first bytes of what people send in place of a PNG.
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
	{"<svg", "an SVG", convert},
	{"<?xml", "XML, such as SVG", convert},
	{"<!doc", "an HTML page", picture},
	{"<html", "an HTML page", picture},
	{"{", "JSON", picture},
	{"%PDF", "a PDF", convert},
	{"PK\x03\x04", "a ZIP archive", picture},
	{"\x1f\x8b", "gzip", "send the decompressed bytes; only PNG is taken"},
}

// guess describes what begins with s, at most twelve bytes.
func guess(s string) string {
	if s == "" {
		return "the upload is empty; perhaps no file was chosen, or a file was read before and must be rewound"
	}
	for _, l := range lookalikes {
		if strings.HasPrefix(s, l.prefix) || l.prefix[0] == '<' && strings.HasPrefix(strings.ToLower(s), l.prefix) {
			return fmt.Sprintf("it looks like %s; %s", l.name, l.help)
		}
	}
	if name := container(s); name != "" {
		return fmt.Sprintf("it looks like %s; %s", name, convert)
	}
	return fmt.Sprintf("it is of no known format; only PNG is taken: it begins with %q, a PNG with %q", s, pngSignature)
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
	case s[4:8] != "ftyp":
		return ""
	case brand == "avif" || brand == "avis":
		return "an AVIF"
	case brand[:2] == "he": // heic, heix, hevc, heim, …
		return "a HEIC"
	default:
		return "a HEIC, an AVIF or a video"
	}
}
