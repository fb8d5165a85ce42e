package strongswan

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/tshark"
)

// TestAnalyserChecksIntegrity lets tshark open what a node and strongSwan say to each other, with the node's key log,
// and check the integrity value of every ESP packet.
func TestAnalyserChecksIntegrity(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, ike, esp, peerIKE, peerESP string }{
		{"gcm", "AES-GCM-256-SHA384-ecp384", "ESP[AES-GCM-256]", pair.UsualPeerIKE, pair.UsualPeerESP},
		{"cbc", "AES256-SHA256-x25519", "ESP[AES-256,SHA256]", "aes256-sha256-x25519", "aes256-sha256"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			p.StartPeer(partner(c.peerIKE, c.peerESP))
			keyLog := filepath.Join(p.Dir, "keys")
			p.StartNode(pair.Policy{IKE: c.ike, ESP: c.esp, Args: []string{"--keylog", keyLog}})
			// Packets that the node sends in one go would be one frame, which no analyser takes apart.
			p.Run(p.Node, "ip", "link", "set", "dev", "eth0", "gso_max_segs", "1")
			capture := p.Capture()
			p.BringUp(pair.FromNode)
			p.RekeyChild(pair.FromPeer)
			p.RekeyIKE(pair.FromNode)
			p.Talk(pair.FromPeer)
			frames, err := capture.Stop()
			if err != nil {
				t.Fatal(err)
			}
			keys, err := tshark.ReadKeys(keyLog)
			if err != nil {
				t.Fatal(err)
			}
			if found := tshark.Holding(frames, pair.Marker[:16]); len(found) > 0 {
				t.Errorf("%d frames hold payload in clear", len(found))
			}
			packets, err := tshark.Run(p.Ctx, tshark.Query{
				Frames: frames, Keys: keys, Filter: "esp || isakmp.exchangetype != 34",
				Fields: []string{"esp.icv_good", "isakmp.enc.decrypted", "isakmp.ikev2.integrity_checksum", "ip.src", "tcp.payload"},
			})
			if err != nil {
				t.Fatal(err)
			}
			esp, ike, said := 0, 0, map[string]bool{}
			for i, packet := range packets {
				icv, decrypted, wrong, sources := packet[0], packet[1], packet[2], packet[3]
				switch {
				case slices.Equal(icv, []string{"1"}):
					esp++
					for _, payload := range packet[4] {
						said[payload+" from "+sources[len(sources)-1]] = true
					}
				case len(icv) == 0 && len(decrypted) > 0 && len(wrong) == 0:
					ike++
				default:
					t.Errorf("packet %d: tshark finds %v", i+1, packet)
				}
			}
			for _, from := range []string{pair.NodeInner.String(), pair.PeerInner.String()} {
				if want := fmt.Sprintf("%x from %s", pair.Marker, from); !said[want] {
					t.Errorf("tshark did not read what %s said", from)
				}
			}
			if esp < 10 || ike < 6 {
				t.Errorf("tshark opened %d ESP packets and %d IKE messages, want at least 10 and 6", esp, ike)
			}
		})
	}
}
