package strongswan

import (
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
)

// TestSuites negotiates every suite from either side and looks at both ends and at the wire.
func TestSuites(t *testing.T) {
	t.Parallel()
	shows(t, 1, 51)
	for _, c := range []struct {
		name, ike, esp         string // of the node
		peerIKE, peerESP       string // of strongSwan
		group, cipher, keySize string // what strongSwan says of the outcome
		child, childKeySize    string
	}{
		{
			"gcm256-ecp384", "AES-GCM-256-SHA384-ecp384", "ESP[AES-GCM-256]",
			"aes256gcm16-prfsha384-ecp384", "aes256gcm16", "ECP_384", "AES_GCM_16", "256", "AES_GCM_16", "256",
		},
		{
			"cbc256-x25519", "AES256-SHA256-x25519", "ESP[AES-GCM-128]",
			"aes256-sha256-x25519", "aes128gcm16", "CURVE_25519", "AES_CBC", "256", "AES_GCM_16", "128",
		},
		{
			"chacha-ecp256", "CHACHA20-POLY1305-SHA256-ecp256", "ESP[CHACHA20-POLY1305]",
			"chacha20poly1305-prfsha256-ecp256", "chacha20poly1305", "ECP_256", "CHACHA20_POLY1305", "", "CHACHA20_POLY1305", "",
		},
		{
			"gcm256-ecp521", "AES-GCM-256-SHA512-ecp521", "ESP[AES-GCM-256]",
			"aes256gcm16-prfsha512-ecp521", "aes256gcm16", "ECP_521", "AES_GCM_16", "256", "AES_GCM_16", "256",
		},
		{
			"cbc128-modp2048", "AES128-SHA256-modp2048", "ESP[AES-256,SHA256]",
			"aes128-sha256-modp2048", "aes256-sha256", "MODP_2048", "AES_CBC", "128", "AES_CBC", "256",
		},
	} {
		for _, initiator := range pair.Sides {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				p.StartPeer(partner(c.peerIKE, c.peerESP))
				p.StartNode(pair.Policy{IKE: c.ike, ESP: c.esp})
				theirs, ours := p.Carries(initiator)
				if theirs.Group != c.group || theirs.Encryption != c.cipher || theirs.KeySize != c.keySize {
					t.Errorf("strongSwan says %+v", theirs)
				}
				if child := theirs.Children[0]; child.Encryption != c.child || child.KeySize != c.childKeySize {
					t.Errorf("strongSwan says of the child %+v", child)
				}
				if ours.Children[0].Suite != c.esp || ours.IKE[0].Suite != c.ike {
					t.Errorf("the node says %+v", ours)
				}
			})
		}
	}
}
