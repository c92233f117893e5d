package verify

import (
	"fmt"
	"strings"
)

// unsupported says what the stream is that begins with head, which is no PNG. Its
// offset is that of the first byte that a PNG does not have there.
func unsupported(head []byte) error {
	at := 0
	for at < len(head) && head[at] == pngSignature[at] {
		at++
	}
	return &Error{ErrUnsupportedType, int64(at), guess(string(head))}
}

// lookalikes lists the first bytes of what people send in place of a PNG.
var lookalikes = []struct{ prefix, name string }{
	// The signature was designed to reveal these (section 5.2).
	{"\x89PNG\n\x1a\n", "a PNG damaged by a transfer in text mode (CR LF became LF)"},
	{"\x89PNG\r\r\n", "a PNG damaged by a transfer in text mode (LF became CR LF)"},
	{"\x89PNG\n\n", "a PNG damaged by a transfer in text mode (CR became LF)"},
	{"\x89PNG\r\r", "a PNG damaged by a transfer in text mode (LF became CR)"},
	{"\tPNG", "a PNG damaged by a 7-bit transfer"},
	{"\xc2\x89PNG", "a PNG that was converted from Latin-1 to UTF-8"},
	{"\xef\xbf\xbdPNG", "a PNG that was decoded as UTF-8"},
	{"iVBORw0K", "a PNG in base64; send the decoded bytes"},
	{"data:", "a data: URL; send the decoded bytes"},
	{"--", "a multipart body; send it with its own Content-Type, and not inside another"},

	{"\xff\xd8\xff", "a JPEG"},
	{"GIF8", "a GIF"},
	{"RIFF", "a RIFF file, such as WebP"},
	{"BM", "a BMP"},
	{"II*\x00", "a TIFF"},
	{"MM\x00*", "a TIFF"},
	{"\x00\x00\x01\x00", "an icon (ICO)"},
	{"8BPS", "a Photoshop document"},
	{"\xff\x0a", "a JPEG XL"},
	{"\x00\x00\x00\x0cJXL ", "a JPEG XL"},
	{"\x8aMNG", "an MNG"},
	{"\x8bJNG", "a JNG"},
	{"<svg", "an SVG"},
	{"<?xml", "XML, such as SVG"},
	{"<!doc", "an HTML page"},
	{"<html", "an HTML page"},
	{"{", "JSON"},
	{"%PDF", "a PDF"},
	{"PK\x03\x04", "a ZIP archive"},
	{"\x1f\x8b", "gzip; send the decompressed bytes"},
}

// guess describes what begins with s, at most eight bytes.
func guess(s string) string {
	if s == "" {
		return "no bytes at all"
	}
	for _, l := range lookalikes {
		if strings.HasPrefix(s, l.prefix) || l.prefix[0] == '<' && strings.HasPrefix(strings.ToLower(s), l.prefix) {
			return "it looks like " + l.name
		}
	}
	if len(s) == 8 && s[4:] == "ftyp" {
		return "it looks like an AVIF, a HEIC or a video"
	}
	return fmt.Sprintf("it begins with %q, a PNG with %q", s, pngSignature)
}
