package charon

import (
	"errors"
	"testing"
)

// FuzzVICI reads any octets as what a daemon answers.
func FuzzVICI(f *testing.F) {
	f.Add(appendSettings(nil, []setting{{"key", "value"}}))
	f.Add([]byte{elementList, 1, 'l', elementItem, 0, 1, 'x', elementItem, 0, 0, elementListEnd})
	f.Add([]byte{elementSection, 1, 's', elementValue, 1, 'k', 0, 1, 'v', elementSectionEnd})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, rest, err := parseSection(b, 0)
		if err != nil && !errors.Is(err, errVici) {
			t.Fatalf("%x gives %v", b, err)
		}
		if err == nil && (len(rest) != 0 || len(m.names) > len(b)) {
			t.Fatalf("%x is read as %+v", b, m)
		}
	})
}
