package imagestore

import (
	"fmt"
	"slices"
	"strings"
)

// A Format is a file format of images. Its value is the media type.
type Format string

// The formats that a Store can take. docs/formats.md says what is validated of each.
const (
	PNG  Format = "image/png"  // W3C PNG, Third Edition
	JPEG Format = "image/jpeg" // ITU-T T.81
	GIF  Format = "image/gif"  // GIF89a
	WebP Format = "image/webp" // RFC 9649
	AVIF Format = "image/avif" // AV1 Image File Format
	HEIC Format = "image/heic" // ISO/IEC 23008-12 with HEVC
)

// Formats returns all formats that a Store can take.
func Formats() []Format { return []Format{PNG, JPEG, GIF, WebP, AVIF, HEIC} }

// extensions has the file name extension of each format, without its dot.
var extensions = map[Format]string{PNG: "png", JPEG: "jpg", GIF: "gif", WebP: "webp", AVIF: "avif", HEIC: "heic"}

// ParseFormats parses a list such as "png,jpeg". It takes the names of the media types
// without image/, in any case, and jpg.
func ParseFormats(list string) ([]Format, error) {
	var parsed []Format
	for name := range strings.SplitSeq(list, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		if name == "jpg" {
			name = "jpeg"
		}
		f := Format("image/" + name)
		if !slices.Contains(Formats(), f) {
			return nil, fmt.Errorf("%.40q is not one of png, jpeg, gif, webp, avif and heic", name)
		}
		if !slices.Contains(parsed, f) {
			parsed = append(parsed, f)
		}
	}
	return parsed, nil
}
