package etag

import "testing"

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		list, tag string
		strong    bool
		found, ok bool
	}{
		{`*`, `"a"`, true, true, true},
		{` * `, "", true, false, true},
		{`"a"`, `"a"`, true, true, true},
		{`"a"`, `"b"`, true, false, true},
		{`"a"`, "", true, false, true},
		{`W/"a"`, `"a"`, true, false, true},
		{`W/"a"`, `"a"`, false, true, true},
		{`"x" , "a"`, `"a"`, true, true, true},
		{`"a,b"`, `"a"`, true, false, true},
		{`,, "a",, ,"b",`, `"b"`, true, true, true}, // empty elements
		{`"a",`, `"a"`, true, true, true},
		{``, `"a"`, true, false, false},
		{`,`, `"a"`, true, false, false},
		{`a`, `"a"`, true, false, false},
		{`"a`, `"a"`, true, false, false},
		{`"b c","a"`, `"a"`, true, false, false},
		{"\"b\x7f\",\"a\"", `"a"`, true, false, false},
		{`"é","a"`, `"a"`, true, true, true},
		{`"a" "b"`, `"a"`, true, false, false},
		{`"a", *`, `"a"`, true, false, false},
	} {
		found, err := Match(test.list, test.tag, test.strong)
		if found != test.found && err == nil || (err == nil) != test.ok {
			t.Errorf("Match(%q, %q, %v): got %v, %v, want %v, malformed: %v", test.list, test.tag, test.strong, found, err, test.found, !test.ok)
		}
	}
}
