// Package exported lets real daemons run what policies/foreign exports for them: strongSwan talks with a node of ours
// under its side of one policy, so does libreswan in a guest whose kernel has IPsec, and its pluto takes every connection.
//
// Its invariant: the text is used as it was exported; only what its comments ask for, a key, is put in. It leaves what the
// text says in detail to policies/foreign.
package exported

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/foreign"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

func TestMain(m *testing.M) { pair.Main(m, 4) }

// partner is the policy of the peer: that of the node, seen from the other end of the tunnel.
const partner = `apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: Partner
filters:
  - source: "10.1.0.0/24"
    destination: "10.2.0.0/24"
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Protect
action: negotiate
offers: ["ESP[AES-GCM-256]:100000k/3600s"]
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: Partner
rules:
  - name: Partner
    filterList: Partner
    filterAction: Protect
    authentication: [{method: psk, secretRef: partner, localID: "fqdn:node.bank.example", remoteID: "fqdn:peer.bank.example"}]
    tunnel: {remote: "10.9.0.2", local: "10.9.0.1"}
keyExchange:
  offers: [AES-GCM-256-SHA384-ecp384, AES256-SHA256-ecp256]
`

// effective returns the policy of a text, for the other end of its tunnels.
func effective(t *testing.T, text, name string, reverse bool) spd.Policy {
	t.Helper()
	docs, err := policies.Decode("policy.yaml", []byte(text))
	if err == nil {
		err = policies.Check(policies.Validate(docs))
	}
	if err != nil {
		t.Fatal(err)
	}
	p, err := docs.Effective(name)
	if err == nil && reverse {
		p, err = foreign.Reverse(p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var machine = foreign.Machine{Name: pair.PeerName, Facts: spd.Facts{Addresses: []netip.Addr{pair.PeerOuter}}}

// withKey puts the key where the exported text asks for it.
func withKey(t *testing.T, config foreign.Config) string {
	t.Helper()
	const mark = "# secret = <the preshared key that policies call partner; nothing authenticates without it>"
	text := string(config.Text)
	if strings.Count(text, mark) != 1 {
		t.Fatalf("no place for the key:\n%s", text)
	}
	return strings.Replace(text, mark, "secret = 0x"+hex.EncodeToString(pair.PSK), 1)
}

// TestStrongSwan lets each side begin under the exported configuration; packets flow, and none in clear.
func TestStrongSwan(t *testing.T) {
	for _, initiator := range pair.Sides {
		t.Run(initiator.String(), func(t *testing.T) {
			t.Parallel()
			config, err := foreign.StrongSwan(effective(t, partner, "Partner", true), machine)
			if err != nil {
				t.Fatal(err)
			}
			if weaker := config.Weaker(); len(weaker) > 0 {
				t.Errorf("the peer protects less: %v", weaker)
			}
			p := pair.WithHost(t, "bwxp-")
			p.StartPeer(charon.Config{Options: map[string]string{}, Plugins: map[string]string{}, Sections: withKey(t, config)})
			p.StartNode(pair.Policy{UDP: true})
			capture := p.Capture()
			if initiator == pair.FromPeer {
				// IPsec in user space does not hear of packets that want a Child SA, which the kernel would tell.
				if err := p.Charon.Initiate(p.Ctx, "partner-1"); err != nil {
					t.Fatal(err)
				}
			}
			p.Talk(initiator)
			p.Talk(initiator.Other())
			p.Protected(capture)
			theirs, err := p.Charon.SAs(p.Ctx)
			if err != nil || len(theirs) != 1 || len(pair.Installed(theirs[0])) != 1 {
				t.Fatalf("strongSwan has %+v, %v; want one Child SA", theirs, err)
			}
		})
	}
}

// TestStrongSwanWithoutKey shows that the exported text alone lets nobody in.
func TestStrongSwanWithoutKey(t *testing.T) {
	t.Parallel()
	config, err := foreign.StrongSwan(effective(t, partner, "Partner", true), machine)
	if err != nil {
		t.Fatal(err)
	}
	p := pair.WithHost(t, "bwxp-")
	p.StartPeer(charon.Config{Options: map[string]string{}, Plugins: map[string]string{}, Sections: string(config.Text)})
	p.StartNode(pair.Policy{UDP: true})
	p.Refused(pair.FromNode)
}
