package ikeload

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Method is how two sides authenticate.
type Method uint8

// The methods.
const (
	MethodSharedKey    Method = iota + 1 // one preshared key for all peers
	MethodDistinctKeys                   // a preshared key, a rule and an identity for each peer
	MethodCertificate
)

// Plan describes what is negotiated between initiators and responders: which side has which address, and which policy
// both have. Both sides compute the same from it. IKE SAs use AES-256-GCM, HMAC-SHA-256 and X25519, Child SAs AES-256-GCM.
type Plan struct {
	Method Method
	KEM    bool // ML-KEM-768 as additional key exchange
	Peers  int  // pairs of addresses, 65,000 at the most
	// Children are the Child SAs, each for one port, that as many consecutive pairs have between the same two addresses; 0
	// is one, for everything.
	Children int
	// Initiators and Responders are the prefixes, of 16 bits, that addresses are taken from.
	Initiators, Responders netip.Prefix
}

// DefaultPlan is a plan on documentation-free private addresses.
func DefaultPlan(method Method, peers int) Plan {
	return Plan{
		Method: method, Peers: peers,
		Initiators: netip.MustParsePrefix("10.8.0.0/16"), Responders: netip.MustParsePrefix("10.9.0.0/16"),
	}
}

// rule is the rule of all peers; rules of one peer have its number behind.
const rule = "load"

// Initiator is the address of initiator i.
func (p Plan) Initiator(i int) netip.Addr { return nth(p.Initiators, i/max(p.Children, 1)) }

// Responder is the address that initiator i talks to.
func (p Plan) Responder(i int) netip.Addr { return nth(p.Responders, i/max(p.Children, 1)) }

// nth skips the network's own address.
func nth(in netip.Prefix, i int) netip.Addr {
	a := in.Masked().Addr().As4()
	binary.BigEndian.PutUint16(a[2:], uint16(i+1))
	return netip.AddrFrom4(a)
}

// Flow asks for the association of pair i, seen from the initiator.
func (p Plan) Flow(i int) ike.Flow {
	local, remote := p.Initiator(i), p.Responder(i)
	f := ike.Flow{Rule: rule, Local: local, Remote: remote, LocalTS: single(local), RemoteTS: single(remote)}
	if p.Method == MethodDistinctKeys {
		f.Rule = ruleOf(i)
	}
	if p.Children > 1 {
		port := uint16(firstPort + i%p.Children)
		f.RemoteTS.Protocol, f.RemoteTS.PortFrom, f.RemoteTS.PortTo = protocolTCP, port, port
		f.LocalTS.Protocol = protocolTCP
	}
	return f
}

// The traffic of several Child SAs between the same addresses differs by the responder's TCP port.
const (
	protocolTCP = 6
	firstPort   = 1024
)

func ruleOf(i int) string { return fmt.Sprintf("%s-%d", rule, i) }

func single(a netip.Addr) sa.Selector { return sa.Selector{From: a, To: a, PortTo: 65535} }

func whole(p netip.Prefix) sa.Selector {
	to := p.Masked().Addr().As4()
	to[2], to[3] = 255, 255
	return sa.Selector{From: p.Masked().Addr(), To: netip.AddrFrom4(to), PortTo: 65535}
}

// secretOf is the preshared key of pair i.
func secretOf(i int) sa.Secret {
	sum := sha256.Sum256(fmt.Appendf(nil, "key of pair %d", i))
	return sa.NewSecret(sum[:])
}

// Key is the preshared key of pair i.
func (p Plan) Key(i int) []byte {
	if p.Method == MethodSharedKey {
		i = 0
	}
	return secretOf(i).Expose()
}

// config is the configuration of a machine on one of the sides. Its identity is nil without certificates.
func (p Plan) config(responder bool, identity *Identity, authority []byte) ike.Config {
	offer := proposal.IKE{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519}
	if p.KEM {
		offer.Additional = proposal.AdditionalOf(proposal.GroupMLKEM768)
	}
	c := ike.Config{Offers: []proposal.IKE{offer}, Secrets: make(map[string]sa.Secret)}
	local, remote := p.Initiators, p.Responders
	if responder {
		local, remote = remote, local
	}
	esp := []proposal.ESP{{Encryption: proposal.EncrAESGCM16, KeyBits: 256}}
	common := ike.Rule{ID: rule, Mode: sa.Transport, Pairs: []ike.Pair{{Local: whole(local), Remote: whole(remote)}}, Offers: esp}
	switch p.Method {
	case MethodSharedKey:
		c.Secrets["shared"] = secretOf(0)
		common.Auth = []spd.Auth{{Method: spd.AuthPSK, Secret: "shared"}}
		c.Rules = []ike.Rule{common}
	case MethodDistinctKeys:
		for i := range p.Peers {
			name := fmt.Sprintf("pair-%d", i)
			c.Secrets[name] = secretOf(i)
			own, peer := nth(local, i), nth(remote, i)
			c.Rules = append(c.Rules, ike.Rule{
				ID: ruleOf(i), Mode: sa.Transport, Pairs: []ike.Pair{{Local: single(own), Remote: single(peer)}}, Offers: esp,
				Auth: []spd.Auth{{Method: spd.AuthPSK, Secret: name, RemoteID: "ip:" + peer.String()}},
			})
		}
	case MethodCertificate:
		common.Auth = []spd.Auth{{Method: spd.AuthCertificate}}
		c.Rules = []ike.Rule{common}
		c.Local = ike.Identity{Type: byte(wire.IDFQDN), Data: []byte(identity.Name)}
		c.Chain = [][]byte{identity.DER}
		c.Authorities = [][]byte{authority}
	}
	return c
}
