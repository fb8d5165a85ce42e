package strongswan

import (
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/localapi"
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
		for _, initiator := range []side{fromNode, fromPeer} {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				p.startPeer(partner(c.peerIKE, c.peerESP))
				p.startNode(policy{ike: c.ike, esp: c.esp})
				capture := p.capture()
				p.bringUp(initiator)
				p.talk(fromNode)
				p.talk(fromPeer)
				p.protected(capture)
				theirs, ours := p.agree(initiator)
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

// bringUp lets a side negotiate: ours by traffic, strongSwan by command.
func (p *pair) bringUp(initiator side) {
	p.t.Helper()
	if initiator == fromNode {
		p.talk(fromNode)
		return
	}
	if err := p.charon.Initiate(p.ctx, netName); err != nil {
		p.t.Fatal(err)
	}
}

// protected requires that everything in the capture was IKE or ESP, and that there was both.
func (p *pair) protected(capture *lab.Capture) traffic {
	p.t.Helper()
	frames, err := capture.Stop()
	if err != nil {
		p.t.Fatal(err)
	}
	w := look(frames)
	if w.ike == 0 || w.esp == 0 || w.clear != 0 || w.markers != 0 {
		p.t.Errorf("on the wire: %+v, want IKE and ESP and nothing in clear", w)
	}
	return w
}

// agree requires that both ends have exactly one IKE SA with one child, and that they are the same.
func (p *pair) agree(initiator side) (charon.SA, localapi.Associations) {
	p.t.Helper()
	theirs, err := p.charon.SAs(p.ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	ours, err := p.client.Associations(p.ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	if len(theirs) != 1 || len(ours.IKE) != 1 || len(ours.Children) != 1 {
		p.t.Fatalf("strongSwan has %v, the node has %+v; want one IKE SA with one child", theirs, ours)
	}
	their, our := theirs[0], ours.IKE[0]
	// strongSwan keeps what it has rekeyed for a few seconds, for late packets.
	if their.Children = installed(their); len(their.Children) != 1 {
		p.t.Fatalf("strongSwan has children %+v, want one", theirs[0].Children)
	}
	own, foreign := their.ResponderSPI, their.InitiatorSPI
	if initiator == fromNode {
		own, foreign = foreign, own
	}
	if our.Initiator != (initiator == fromNode) || their.Initiator == our.Initiator || our.SPI != own || our.PeerSPI != foreign {
		p.t.Errorf("the node has %+v, strongSwan has %+v", our, their)
	}
	if child := their.Children[0]; child.In != ours.Children[0].Out || child.Out != ours.Children[0].In {
		p.t.Errorf("the node has child %+v, strongSwan has %+v", ours.Children[0], child)
	}
	return their, ours
}
