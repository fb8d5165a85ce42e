package ldap

import (
	"fmt"
	"strings"
	"testing"
)

// FuzzRange reads any description of an attribute: a range is one that a server can have meant.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"member;range=0-1499", "member;range=1500-*", "member;binary", "member;range=0--1", "member;RANGE=0-07", ";range=-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, description string) {
		name, end, ok := parseRange(description)
		switch {
		case !ok && name != description:
			t.Fatalf("%q has no range, and is named %q", description, name)
		case ok && (end < -1 || !strings.HasPrefix(description, name+";")):
			t.Fatalf("%q is read as %q to %d", description, name, end)
		case ok && end >= 0 && !strings.HasSuffix(description, fmt.Sprintf("-%d", end)):
			t.Fatalf("%q is read as %q to %d", description, name, end)
		}
	})
}
