package formfile

import (
	"mime"
	"net/textproto"
	"strings"
)

// nameOf returns the name in a part's Content-Disposition. [mime.ParseMediaType]
// fails if any other parameter is malformed. File names often are, and nobody needs
// them here.
func nameOf(header textproto.MIMEHeader) string {
	disposition := header.Get("Content-Disposition")
	_, params, err := mime.ParseMediaType(disposition)
	name := params["name"]
	if err != nil {
		name = nameIn(disposition)
	}
	return strings.Trim(name, "'") // some write name='file'
}

// nameIn returns the first parameter "name" of a malformed Content-Disposition.
func nameIn(disposition string) string {
	_, rest, more := strings.Cut(disposition, ";")
	for more {
		var key, value string
		key, rest, _ = strings.Cut(rest, "=")
		value, rest, more = cutValue(strings.TrimLeft(rest, blanks))
		// A parameter without a value may precede the key.
		key = key[strings.LastIndexByte(key, ';')+1:]
		if strings.EqualFold(strings.Trim(key, blanks), "name") {
			return value
		}
	}
	return ""
}

// cutValue returns the value at the start of s and the text after its semicolon. A
// value in quotes may have quotes in it. It ends at the first quote before a
// semicolon or the end.
func cutValue(s string) (value, rest string, more bool) {
	if quoted, ok := strings.CutPrefix(s, `"`); ok {
		for i := range len(quoted) {
			if quoted[i] != '"' {
				continue
			}
			after := strings.TrimLeft(quoted[i+1:], blanks)
			if after == "" || after[0] == ';' {
				return quoted[:i], strings.TrimPrefix(after, ";"), after != ""
			}
		}
	}
	value, rest, more = strings.Cut(s, ";")
	return strings.Trim(value, blanks+`"`), rest, more
}

const blanks = " \t"
