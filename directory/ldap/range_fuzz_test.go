package ldap

import (
	"fmt"
	"strings"
	"testing"
)

// FuzzRange reads any description of an attribute: a range is one that a server can have meant.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"member;range=0-1499", "member;range=1500-*", "member;binary", "member;range=0--1", "member;range=-0-1", "member;range=7-5", "member;range=0", "member;RANGE=0-07", ";range=-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, description string) {
		r, ok := parseRange(description)
		end := fmt.Sprint(r.end)
		if r.end < 0 {
			end = "*"
		}
		switch {
		case !ok && r != (valueRange{}):
			t.Fatalf("%q has no range, and is read as %+v", description, r)
		case ok && r.first < 0 && r.whole(0, 0):
			t.Fatalf("%q is no range, and taken for whole", description)
		case ok && r.first >= 0 && !strings.EqualFold(description, fmt.Sprintf("%s;range=%d-%s", r.name, r.first, end)):
			t.Fatalf("%q is read as %+v", description, r)
		}
	})
}
