package pngproof

import (
	"fmt"
	"strings"
)

const magic = "\x89PNG\r\n\x1a\n" // section 5.2

// notPNG tells what a stream that begins with head is, if it is no PNG.
func (p *Reader) notPNG(head []byte) error {
	for i, c := range head {
		if c != magic[i] {
			return p.fail(ErrNotPNG, int64(i), "%s", guess(head))
		}
	}
	return nil
}

// lookalikes tells by their first bytes what people send in place of a PNG.
var lookalikes = []struct{ prefix, name string }{
	// What the signature was designed to reveal (section 5.2).
	{"\x89PNG\n\x1a\n", "a PNG that went through a transfer in text mode, which made LF of CR LF"},
	{"\x89PNG\r\r\n", "a PNG that went through a transfer in text mode, which made CR LF of LF"},
	{"\x89PNG\n\n", "a PNG that went through a transfer in text mode, which made LF of CR"},
	{"\x89PNG\r\r", "a PNG that went through a transfer in text mode, which made CR of LF"},
	{"\tPNG", "a PNG that has lost the highest bit of every byte"},
	{"\xc2\x89PNG", "a PNG that was taken for Latin-1 text and made UTF-8"},
	{"\xef\xbf\xbdPNG", "a PNG that was taken for UTF-8 text"},
	{"iVBORw0K", "a PNG in base64; send the decoded bytes"},
	{"data:", "a data: URL; send the decoded bytes"},
	{"--", "a multipart body inside another, or without the Content-Type that says so"},

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
	{"\x1f\x8b", "gzip; send it unpacked"},
}

// guess tells what begins with head, the up to eight bytes that are no signature.
func guess(head []byte) string {
	s := string(head)
	for _, l := range lookalikes {
		if strings.HasPrefix(s, l.prefix) || l.prefix[0] == '<' && strings.HasPrefix(strings.ToLower(s), l.prefix) {
			return "it looks like " + l.name
		}
	}
	if len(s) == 8 && s[4:] == "ftyp" {
		return "it looks like an AVIF, a HEIC or a film"
	}
	return fmt.Sprintf("it begins with %q, not with the signature %q", s, magic)
}
