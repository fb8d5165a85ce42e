package pair

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
)

const policyName = "Partner"

// The offers of tests that are not about them.
const (
	UsualIKE     = "AES-GCM-256-SHA384-ecp384"
	UsualESP     = "ESP[AES-GCM-256]"
	UsualPeerIKE = "aes256gcm16-prfsha384-ecp384"
	UsualPeerESP = "aes256gcm16"
)

// Policy is the node's policy, written as an administrator would.
type Policy struct {
	IKE, ESP    string // offers, separated by spaces; UsualIKE and UsualESP when empty
	IKELifetime string
	Transport   bool // between the ends themselves, instead of the networks behind them
	V6          bool // over IPv6, in transport mode
	PFS         bool
	UDP         bool // ESP in UDP although there is no NAT
	// KeyExchange is further text of the section keyExchange, with two spaces before each line.
	KeyExchange string
	// Authenticate is one entry of authentication in flow form: ByPSK, ByCertificate, or another one.
	Authenticate string
	Local        string // network behind the node; NodeNet when empty
	Remote       string // network behind the peer, in transport mode that of all peers; PeerNet or the peer when empty
	Tunnel       string // address of the peer; PeerOuter when empty
	Key          []byte // preshared key, where it is not PSK
	Args         []string
}

// ByPSK and ByCertificate are how the ends authenticate.
const (
	ByPSK         = `{method: psk, secretRef: ` + PSKName + `, localID: "fqdn:` + NodeName + `", remoteID: "fqdn:` + PeerName + `"}`
	ByCertificate = `{method: certificate, remoteID: "fqdn:` + PeerName + `"}`
)

// encapsulation is the node's own setting.
func (p Policy) encapsulation() string {
	if p.UDP {
		return "always"
	}
	return "nat"
}

func (p Policy) document() []byte {
	or := func(s, otherwise string) string {
		if s == "" {
			return otherwise
		}
		return s
	}
	list := func(offers string) string {
		return `["` + strings.Join(strings.Fields(offers), `", "`) + `"]`
	}
	source, destination, tunnel := or(p.Local, NodeNet.String()), or(p.Remote, PeerNet.String()), "\n    tunnel:\n      remote: "+or(p.Tunnel, PeerOuter.String())
	if p.Transport {
		source, tunnel = "me", ""
		switch {
		case p.Remote != "":
		case p.V6:
			destination = PeerOuter6.String()
		default:
			destination = PeerOuter.String()
		}
	}
	return fmt.Appendf(nil, `apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: Partner
filters:
  - source: "%s"
    destination: "%s"
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Protect
action: negotiate
offers: %s
pfs: %t
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: %s
rules:
  - name: Partner
    filterList: Partner
    filterAction: Protect
    authentication: [%s]%s
keyExchange:
  offers: %s
  lifetime: %s
%s`, source, destination, list(or(p.ESP, UsualESP)), p.PFS, policyName, or(p.Authenticate, ByPSK), tunnel,
		list(or(p.IKE, UsualIKE)), or(p.IKELifetime, "8h"), p.KeyExchange)
}

// Partner is strongSwan's side of a policy: one connection with one child of these proposals. The settings of the child
// that are not of the policy are for change.
func Partner(policy Policy, ike, esp string, change ...func(*charon.Config)) charon.Config {
	if ike == "" {
		ike = UsualPeerIKE
	}
	if esp == "" {
		esp = UsualPeerESP
	}
	config := charon.Config{
		Secrets: []charon.Secret{{IDs: []string{NodeName, PeerName}, Key: PSK}},
		Connections: []charon.Connection{{
			Name: ConnName, Local: PeerOuter, Remote: NodeOuter, Auth: charon.AuthPSK,
			LocalID: PeerName, RemoteID: NodeName, Proposals: []string{ike}, Settings: map[string]string{},
			Children: []charon.Child{{Name: NetName, LocalTS: PeerNet, RemoteTS: NodeNet, Proposals: []string{esp}, Settings: map[string]string{}}},
		}},
		Options: map[string]string{}, Plugins: map[string]string{},
	}
	if policy.V6 {
		config.Connections[0].Local, config.Connections[0].Remote = PeerOuter6, NodeOuter6
	}
	if policy.Transport {
		// Without selectors, they are the ends of the IKE SA.
		child := &config.Connections[0].Children[0]
		child.LocalTS, child.RemoteTS = netip.Prefix{}, netip.Prefix{}
		child.Settings["mode"] = "transport"
	}
	for _, c := range change {
		c(&config)
	}
	return config
}

// Child changes a setting of strongSwan's child.
func Child(key, value string) func(*charon.Config) {
	return func(c *charon.Config) { c.Connections[0].Children[0].Settings[key] = value }
}

// Connection changes a setting of strongSwan's connection.
func Connection(key, value string) func(*charon.Config) {
	return func(c *charon.Config) { c.Connections[0].Settings[key] = value }
}

// Option changes a setting of the daemon.
func Option(key, value string) func(*charon.Config) {
	return func(c *charon.Config) { c.Options[key] = value }
}

// Plugin changes a setting of a plugin of the daemon: "kernel-libipsec.raw_esp".
func Plugin(key, value string) func(*charon.Config) {
	return func(c *charon.Config) { c.Plugins[key] = value }
}
