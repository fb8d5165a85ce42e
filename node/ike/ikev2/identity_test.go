package ikev2

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// FuzzIdentity reads what a policy calls an identity, and prints what a peer calls one. What is printed is fit for a
// terminal whatever the peer has chosen, and what a policy can name is printed as it was named.
func FuzzIdentity(f *testing.F) {
	for _, text := range []string{"fqdn:a.example", "email:a@b.example", "ip:10.0.0.1", "ip:2001:db8::1", "dn:CN=a", "fqdn:", "ip:fe80::1%eth0", ""} {
		f.Add(text, byte(wire.IDFQDN), []byte(text))
	}
	f.Add("fqdn:x", byte(wire.IDDERASN1DN), []byte{0x30, 0x0c, 0x31, 0x0a, 0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x01, 'a'})
	f.Add("fqdn:x", byte(wire.IDKeyID), []byte{0x1b, '[', '2', 'J'})
	f.Fuzz(func(t *testing.T, text string, kind byte, data []byte) {
		printed := idString(wire.ID{Type: wire.IDType(kind), Data: data})
		if i := strings.IndexFunc(printed, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Fatalf("identity %x of type %d is printed as %q", data, kind, printed)
		}
		id, err := parseID(text, nil)
		if err != nil {
			return
		}
		if len(id.Data) == 0 {
			t.Fatalf("%q is an identity of no octets", text)
		}
		_, value, _ := strings.Cut(text, ":")
		if id.Type == wire.IDFQDN && !bytes.Equal(id.Data, []byte(value)) {
			t.Fatalf("%q is read as %x", text, id.Data)
		}
	})
}
