package digest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A value is that of a member of a dictionary. Digest fields have integers and byte
// sequences only.
type value struct {
	kind    kind
	integer int64
	bytes   []byte
}

type kind uint8

const (
	other kind = iota
	integer
	byteSequence
)

// errSyntax is every error of a parser. An offset in a field would help nobody.
var errSyntax = errors.New("syntax error")

// parseDictionary parses a dictionary of structured fields (RFC 9651, section 4.2.2).
// It returns the members whose keys are algorithms. The last of several members with
// one key counts.
func parseDictionary(lines []string) (map[string]value, error) {
	field := strings.Join(lines, ", ")
	values := make(map[string]value)
	p := parser{strings.Trim(field, " ")}
	for p.rest != "" {
		key, v, err := p.member()
		if err == nil {
			err = p.comma()
		}
		if err != nil {
			return nil, fmt.Errorf("%.200q is not a dictionary of structured fields (RFC 9651)", field)
		}
		if isAlgorithm(key) {
			values[key] = v
		}
	}
	return values, nil
}

// A parser holds what is left to parse.
type parser struct{ rest string }

// take consumes a prefix, if it comes next.
func (p *parser) take(prefix string) (ok bool) {
	p.rest, ok = strings.CutPrefix(p.rest, prefix)
	return ok
}

// takeAll consumes and returns the longest prefix of bytes that are in a set.
func (p *parser) takeAll(in func(c byte) bool) (text string) {
	n := 0
	for n < len(p.rest) && in(p.rest[n]) {
		n++
	}
	text, p.rest = p.rest[:n], p.rest[n:]
	return text
}

// skip consumes all of some characters.
func (p *parser) skip(chars string) { p.rest = strings.TrimLeft(p.rest, chars) }

// comma consumes what separates members. One must follow.
func (p *parser) comma() error {
	p.skip(" \t")
	if p.rest == "" {
		return nil
	}
	if !p.take(",") {
		return errSyntax
	}
	if p.skip(" \t"); p.rest == "" {
		return errSyntax
	}
	return nil
}

// member parses a key, its value and its parameters. A key alone is a boolean.
func (p *parser) member() (key string, v value, err error) {
	if key, err = p.key(); err != nil {
		return "", v, err
	}
	if p.take("=") {
		if p.take("(") {
			err = p.innerList()
		} else {
			v, err = p.bareItem()
		}
	}
	if err == nil {
		err = p.parameters()
	}
	return key, v, err
}

// key parses a key (section 4.2.3.3).
func (p *parser) key() (string, error) {
	if p.rest == "" || !isLower(p.rest[0]) && p.rest[0] != '*' {
		return "", errSyntax
	}
	return p.takeAll(func(c byte) bool { return isLower(c) || isDigit(c) || strings.IndexByte("_-.*", c) >= 0 }), nil
}

// innerList parses an inner list after its parenthesis (section 4.2.1.2).
func (p *parser) innerList() error {
	for {
		p.skip(" ")
		if p.take(")") {
			return nil
		}
		if _, err := p.bareItem(); err != nil {
			return err
		}
		if err := p.parameters(); err != nil {
			return err
		}
		if !strings.HasPrefix(p.rest, " ") && !strings.HasPrefix(p.rest, ")") {
			return errSyntax
		}
	}
}

// parameters parses parameters, which nobody needs (section 4.2.3.2).
func (p *parser) parameters() error {
	for p.take(";") {
		p.skip(" ")
		if _, err := p.key(); err != nil {
			return err
		}
		if p.take("=") {
			if _, err := p.bareItem(); err != nil {
				return err
			}
		}
	}
	return nil
}

// bareItem parses an item without its parameters (section 4.2.3.1).
func (p *parser) bareItem() (value, error) {
	if p.rest == "" {
		return value{}, errSyntax
	}
	switch c := p.rest[0]; {
	case p.take(":"):
		return p.byteSequence()
	case c == '-' || isDigit(c):
		return p.number()
	case p.take("@"): // a date
		v, err := p.number()
		if v.kind != integer {
			return value{}, errSyntax
		}
		return value{}, err
	case p.take(`"`):
		return value{}, p.string()
	case p.take(`%"`):
		return value{}, p.displayString()
	case p.take("?0"), p.take("?1"):
		return value{}, nil
	case c == '*' || isLower(c) || isUpper(c): // a token
		p.takeAll(func(c byte) bool {
			return isLower(c) || isUpper(c) || isDigit(c) || strings.IndexByte("!#$%&'*+-.^_`|~:/", c) >= 0
		})
		return value{}, nil
	}
	return value{}, errSyntax
}

// byteSequence parses a byte sequence after its colon (section 4.2.7). Padding may be
// missing, and its bits may be set.
func (p *parser) byteSequence() (value, error) {
	text := p.takeAll(func(c byte) bool {
		return isLower(c) || isUpper(c) || isDigit(c) || c == '+' || c == '/' || c == '='
	})
	encoding := base64.RawStdEncoding
	if strings.HasSuffix(text, "=") {
		encoding = base64.StdEncoding
	}
	b, err := encoding.DecodeString(text)
	if err != nil || !p.take(":") {
		return value{}, errSyntax
	}
	return value{kind: byteSequence, bytes: b}, nil
}

// number parses an integer or a decimal (section 4.2.4).
func (p *parser) number() (value, error) {
	sign := ""
	if p.take("-") {
		sign = "-"
	}
	whole := p.takeAll(isDigit)
	if p.take(".") {
		if fraction := p.takeAll(isDigit); whole == "" || len(whole) > 12 || fraction == "" || len(fraction) > 3 {
			return value{}, errSyntax
		}
		return value{}, nil
	}
	if len(whole) > 15 {
		return value{}, errSyntax
	}
	n, err := strconv.ParseInt(sign+whole, 10, 64)
	return value{kind: integer, integer: n}, err
}

// string parses a string after its quote (section 4.2.5).
func (p *parser) string() error {
	for {
		p.takeAll(func(c byte) bool { return isPrintable(c) && c != '"' && c != '\\' })
		switch {
		case p.take(`"`):
			return nil
		case p.take(`\"`), p.take(`\\`):
		default:
			return errSyntax
		}
	}
}

// displayString parses a display string after its quote (section 4.2.10).
func (p *parser) displayString() error {
	var text []byte
	for {
		text = append(text, p.takeAll(func(c byte) bool { return isPrintable(c) && c != '"' && c != '%' })...)
		switch {
		case p.take(`"`):
			if !utf8.Valid(text) {
				return errSyntax
			}
			return nil
		case p.take("%") && len(p.rest) >= 2 && isLowerHex(p.rest[0]) && isLowerHex(p.rest[1]):
			c, _ := strconv.ParseUint(p.rest[:2], 16, 8) // cannot fail
			text, p.rest = append(text, byte(c)), p.rest[2:]
		default:
			return errSyntax
		}
	}
}

func isLower(c byte) bool     { return 'a' <= c && c <= 'z' }
func isUpper(c byte) bool     { return 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool     { return '0' <= c && c <= '9' }
func isLowerHex(c byte) bool  { return isDigit(c) || 'a' <= c && c <= 'f' }
func isPrintable(c byte) bool { return ' ' <= c && c <= '~' }
