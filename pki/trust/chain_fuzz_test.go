package trust_test

import (
	"testing"

	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// FuzzChain gives any octets as the certificates of a peer. They are read or refused for a reason, and none but those that
// the CA has signed are believed.
func FuzzChain(f *testing.F) {
	root := issue(f, nil, "root", asCA)
	intermediate := issue(f, root, "intermediate", asCA)
	leaf := issue(f, intermediate, "sql1.bank.example", nil)
	bundle := bundleOf(f, root)
	f.Add(leaf.cert.Raw, intermediate.cert.Raw)
	f.Add(intermediate.cert.Raw, root.cert.Raw)
	for _, name := range []string{"eca", "eda", "rsaa", "chaina", "int"} {
		f.Add(strongSwan(f, name).Raw, strongSwan(f, "ca").Raw)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		chain, err := trust.ParseChain([][]byte{first, second})
		if err != nil {
			if _, ok := trust.ReasonOf(err); !ok {
				t.Fatalf("%v has no reason", err)
			}
			return
		}
		_, err = bundle.Verify(noon, chain, usages(trust.IPsecIKE))
		if err != nil {
			if _, ok := trust.ReasonOf(err); !ok {
				t.Fatalf("%v has no reason", err)
			}
			return
		}
		if !chain[0].Equal(leaf.cert) {
			t.Fatalf("%x is believed", first)
		}
	})
}
