package pkcs11

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzURI: what is read is written in the same way, and anything else is refused.
func FuzzURI(f *testing.F) {
	f.Add(name{"Bailiwick CA", []byte{1, 0xfe}}.String())
	f.Add("pkcs11:token=a;id=%01;type=public")
	f.Add("pkcs11:token=%zz;id=;type=private")
	f.Fuzz(func(t *testing.T, uri string) {
		n, err := parseURI(uri)
		if err != nil {
			if !errors.Is(err, ErrKey) {
				t.Fatalf("refused with %v, want ErrKey", err)
			}
			return
		}
		again, err := parseURI(n.String())
		if n.String() != uri || err != nil || again.token != n.token || !bytes.Equal(again.id, n.id) {
			t.Fatalf("%q is read as %+v and written as %q: %v", uri, n, n.String(), err)
		}
	})
}
