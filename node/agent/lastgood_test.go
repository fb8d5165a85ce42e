package agent

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// FuzzLastGood reads any octets as the stored policy. Whatever is accepted is a policy of the digest that is beside it, and
// stays the same when it is stored again.
func FuzzLastGood(f *testing.F) {
	b, err := compile.Seal(spd.Policy{Name: "Server"})
	if err != nil {
		f.Fatal(err)
	}
	g := lastGood{
		Version: Version{
			Digest: b.Digest, DigestHex: b.Digest.String(), Policy: "Server", Container: "ou=servers,dc=bank,dc=example", Content: b.Policy,
		},
		Controllers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:7443")},
	}
	content, err := json.Marshal(g)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add([]byte(`{"version":{"digest":""}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		got, err := parseLastGood(content)
		if err != nil {
			return
		}
		if _, err := compile.Open(got.Version.Content, got.Version.Digest); err != nil {
			t.Fatalf("%q is accepted: %v", content, err)
		}
		stored, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseLastGood(stored); err != nil || again.Version.Digest != got.Version.Digest {
			t.Fatalf("%q is stored as %q, which gives %v", content, stored, err)
		}
	})
}
