package verify

import "strings"

// headSize is how many bytes tell the formats apart.
const headSize = 12

// A format is a kind of file.
type format struct {
	types []string // the media types of what it may hold
	// begins reports whether a file may begin with head, which has headSize bytes, or
	// fewer if that is all there is.
	begins func(head []byte) bool
	// check reads the whole file. It knows that begins was true.
	check func(r *reader, opts Options) (Meta, error)
}

var formats []format

func init() { // because the checks refer to the formats
	formats = []format{
		{[]string{"image/png"}, isPNG, checkPNG},
		{[]string{"image/jpeg"}, isJPEG, checkJPEG},
		{[]string{"image/gif"}, isGIF, checkGIF},
		{[]string{"image/webp"}, isWebP, checkWebP},
		{[]string{"image/avif", "image/heic"}, isISOBMFF, checkISOBMFF},
	}
}

// names has the names of the media types.
var names = map[string]string{
	"image/png":  "PNG",
	"image/jpeg": "JPEG",
	"image/gif":  "GIF",
	"image/webp": "WebP",
	"image/avif": "AVIF",
	"image/heic": "HEIC",
}

// beginsWith reports whether head begins with magic, or is the beginning of it.
func beginsWith(head []byte, magic string) bool {
	n := min(len(head), len(magic))
	return n > 0 && string(head[:n]) == magic[:n]
}

// taken lists the formats that are accepted, such as "only PNG and GIF are taken".
func (o Options) taken() string {
	var list []string
	for _, f := range formats {
		for _, t := range f.types {
			if o.accepts(t) {
				list = append(list, names[t])
			}
		}
	}
	switch n := len(list); n {
	case 0:
		return "nothing is taken"
	case 1:
		return "only " + list[0] + " is taken"
	default:
		return "only " + strings.Join(list[:n-1], ", ") + " and " + list[n-1] + " are taken"
	}
}
