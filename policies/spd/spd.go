// Package spd owns the semantics of a security policy database: symbolic rules as a policy carries them, their expansion
// with the facts of one machine, the weight that orders the filters, and the verdict for a packet.
//
// Its invariant: Set.Lookup is the one definition of what happens to a packet; every faster path (rules in
// nftables, XFRM priorities) is tested against it. It leaves documents to policies, encoding to spdpb and enforcement to
// node/datapath.
package spd

import (
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// AddressKind says how an Address is turned into addresses on the machine that enforces the policy.
type AddressKind uint8

// The address kinds. All but Any and Prefix/Range are expanded from Facts when a policy is put into force.
const (
	AddressAny AddressKind = iota
	AddressMe
	AddressPrefix
	AddressRange
	AddressDNSServers
	AddressDHCPServer
	AddressDefaultGateway
	AddressName
)

// Address is one side of a filter, possibly symbolic.
type Address struct {
	Kind   AddressKind
	Prefix netip.Prefix // AddressPrefix; host bits zero
	From   netip.Addr   // AddressRange, inclusive
	To     netip.Addr   // AddressRange, inclusive, same family as From
	Name   string       // AddressName; a complete DNS name in lower case without a final dot
}

// PortRange is an inclusive range of ports. The zero value means every port.
type PortRange struct{ From, To uint16 }

// Filter describes packets. Ports count only for TCP, UDP, UDP-Lite, SCTP and DCCP.
type Filter struct {
	ID              string // stable, unique in its policy
	Description     string
	Source          Address
	Destination     Address
	Protocol        uint8 // IP protocol number; 0 means every protocol
	SourcePort      PortRange
	DestinationPort PortRange
	Mirrored        bool // the reverse direction matches as well, addresses and ports swapped
}

// Action is what a rule does with the packets of its filters.
type Action uint8

// The actions, in the order in which they win a complete tie of weights: the safest first.
const (
	ActionBlock Action = iota + 1
	ActionPermit
	ActionNegotiate
)

// FallbackMode says whether clear traffic may flow with a peer that does not answer IKE.
type FallbackMode uint8

// The fallback modes ("soft" of the Windows filter action).
const (
	FallbackNone     FallbackMode = iota
	FallbackWait                  // after Delay of silence clear traffic flows for TTL
	FallbackDiscover              // clear at once, negotiation in parallel; a flow once secured never goes back
)

// Fallback is the permission to talk in clear with a peer that is silent. It never covers a peer that answered and
// failed to negotiate.
type Fallback struct {
	Mode  FallbackMode
	Delay time.Duration // FallbackWait: silence before clear traffic; 0 means 3 s
	TTL   time.Duration // life of the soft association; 0 means 5 min
}

// Lifetime bounds a security association; the first limit that is reached counts. Zero means the default of the kind.
type Lifetime struct {
	Time  time.Duration
	Bytes uint64
}

// FilterAction is what happens to the packets of a rule.
type FilterAction struct {
	Name     string
	Action   Action
	Inpass   bool // clear inbound packets are accepted; the reply is negotiated
	Fallback Fallback
	Offers   []proposal.ESP // ordered, most preferred first; only with ActionNegotiate
	PFS      bool           // fresh key exchange for every Child SA
	Lifetime Lifetime       // of Child SAs; default 1 h, 100 MB counts only when set
	// Associations is how many Child SAs with the same selectors are wanted, for as many processors (RFC 9611); 0 means
	// one.
	Associations uint8
}

// MaxAssociations bounds FilterAction.Associations.
const MaxAssociations = 64

// AuthMethod is a way to authenticate the peer.
type AuthMethod uint8

// The authentication methods.
const (
	AuthCertificate AuthMethod = iota + 1
	AuthPSK
)

// Auth is one entry of the ordered authentication list of a rule.
type Auth struct {
	Method AuthMethod
	// CA is the subject DN (RFC 4514) that the peer's chain must contain; empty means the fleet's trust bundle.
	CA string
	// Secret names a preshared key; the key itself never stands in a policy.
	Secret string
	// LocalID and RemoteID override the identities used with a foreign peer, written as "fqdn:host", "email:user@host",
	// "ip:192.0.2.1" or "dn:CN=..."; empty means the machine's own identity and any identity the trust bundle vouches for.
	LocalID  string
	RemoteID string
	// PPK names a postquantum preshared key that is mixed into the keys (RFC 8784); the peer knows it by the same name.
	// With PPKOptional a peer without it is accepted as well.
	PPK         string
	PPKOptional bool
	// AccountMapping accepts a certificate only if it names a machine of the directory, and one that the directory admits.
	// Without it a certificate of a CA beside the fleet's is enough.
	AccountMapping bool
	// ExcludeCAName keeps the CA out of certificate requests, so that strangers do not learn whom the machine trusts.
	ExcludeCAName bool
}

// Interfaces limits a rule to a class of interfaces.
type Interfaces uint8

// The interface classes ("connection type").
const (
	InterfacesAll Interfaces = iota
	InterfacesLAN
	InterfacesRemoteAccess
)

// Rule joins filters with an action, authentication and tunnel setting.
type Rule struct {
	ID         string // stable, unique in its policy
	Name       string
	Filters    []Filter
	Action     FilterAction
	Auth       []Auth
	Interfaces Interfaces
	// Tunnel is the remote tunnel endpoint; the zero value means transport mode. With a tunnel, filters must not name
	// protocols or ports. TunnelLocal is the own endpoint; the zero value means the source address of the route.
	Tunnel      netip.Addr
	TunnelLocal netip.Addr
	// PeerGroups are the DNs of groups of the directory, at most MaxPeerGroups: a peer must be a member of one of them,
	// directly or through other groups. Empty means every peer that authenticates.
	PeerGroups []string
}

const (
	// MaxPeerGroups bounds Rule.PeerGroups.
	MaxPeerGroups = 16
	// MaxGroupLength is the longest name of a group, in octets.
	MaxGroupLength = 1024
	MaxChildLimit  = 65535 // Child SAs of one key exchange of the IKE SA
)

// DefaultResponse answers peers that ask for security where no rule covers them. It never initiates.
type DefaultResponse struct {
	Active   bool
	Offers   []proposal.ESP
	Auth     []Auth
	PFS      bool
	Lifetime Lifetime
	Idle     time.Duration // an association without traffic ends; 0 means 5 min
}

// KeyExchange holds the settings of IKE SAs ("main mode").
type KeyExchange struct {
	Offers   []proposal.IKE
	Lifetime time.Duration // 0 means 8 h
	// Childless tells when an IKE SA is made without its first Child SA (RFC 6023).
	Childless Childless
	// Revocation tells how much a machine must know of the standing of a peer with a certificate.
	Revocation Revocation
	// Reauthentication is how long an authentication counts (RFC 4478); 0 means as long as the certificates.
	Reauthentication time.Duration
	// ChildLimit is how many Child SAs may take their keys from one key exchange of the IKE SA, up to MaxChildLimit; 0 means any
	// number. At 1 every Child SA stands on a key exchange of IKE of its own, which Windows calls master PFS.
	ChildLimit int
	// Mobility tells whether IKE SAs follow a change of address (RFC 4555).
	Mobility Mobility
	// Transcript tells whether both sides authenticate the whole of IKE_SA_INIT.
	Transcript Transcript
	// AnnounceAuthentication tells peers which ways to authenticate a machine accepts (RFC 9593), for fleets with several
	// kinds of credentials.
	AnnounceAuthentication bool
}

// IsZero reports whether nothing is set.
func (k KeyExchange) IsZero() bool {
	return len(k.Offers) == 0 && k.Lifetime == 0 && k.Childless == ChildlessAccept && k.Mobility == MobilityAllow &&
		k.Revocation == RevocationKnown && k.Reauthentication == 0 && k.Transcript == TranscriptPrefer && !k.AnnounceAuthentication && k.ChildLimit == 0
}

// Revocation tells how much a machine must know of the standing of a peer that shows a certificate: whether the
// certificate is revoked, and whether the directory admits the machine.
type Revocation uint8

// The levels, as "strong CRL check" of Windows knows them.
const (
	RevocationKnown  Revocation = iota // refuse whom the machine knows to be revoked or not admitted
	RevocationOff                      // never ask
	RevocationStrict                   // refuse everybody while the machine has not heard of revocations lately
)

// Childless tells when an IKE SA is made without a Child SA in IKE_AUTH (RFC 6023), so that the first Child SA gets a key
// exchange of its own like every later one.
type Childless uint8

// The ways to deal with childless IKE SAs.
const (
	ChildlessAccept Childless = iota // a peer may make them
	ChildlessPrefer                  // this side makes its own ones childless where the peer supports it
	ChildlessNever
)

// Mobility tells whether IKE SAs and tunnels follow a change of address (MOBIKE, RFC 4555).
type Mobility uint8

// The ways to deal with a change of address.
const (
	MobilityAllow      Mobility = iota // they move where the peer supports it
	MobilityWithoutNAT                 // they move, but not to a path with a NAT on it
	MobilityNever                      // they end, and traffic makes new ones
)

// Transcript tells whether each side authenticates both messages of IKE_SA_INIT and not only its own
// (draft-ietf-ipsecme-ikev2-downgrade-prevention). Whoever can break one of several key exchanges while the peers are
// negotiating cannot bring them down to it then.
type Transcript uint8

// The ways to authenticate IKE_SA_INIT.
const (
	TranscriptPrefer  Transcript = iota // the whole, where the peer supports it
	TranscriptRequire                   // the whole, or there is no IKE SA
	TranscriptNever                     // each side its own message
)

// Exemptions are packets that no rule sees. IKE (UDP 500, 4500), ESP, loopback, neighbour and router discovery, the
// packets that ICMPv6 needs, DHCP and the controller are always exempt and cannot be removed.
type Exemptions struct {
	Multicast bool
	Broadcast bool
	// Kerberos exempts port 88 of TCP and UDP, RSVP the protocol of that name, ICMP all of ICMP and ICMPv6.
	Kerberos bool
	RSVP     bool
	ICMP     bool
	// BreakGlassTCP are local TCP ports that stay reachable in clear whatever the policy says.
	BreakGlassTCP []uint16
}

// Policy is one complete effective policy with symbolic addresses, the same for every machine that it applies to.
type Policy struct {
	Name            string
	Rules           []Rule
	DefaultResponse DefaultResponse
	KeyExchange     KeyExchange
	Exemptions      Exemptions
}

// Facts are what a machine knows of itself; they turn symbolic addresses into real ones.
type Facts struct {
	Addresses       []netip.Addr // own unicast addresses, loopback excluded
	DNSServers      []netip.Addr
	DHCPServers     []netip.Addr
	DefaultGateways []netip.Addr
	Broadcasts      []netip.Addr     // directed broadcast addresses of the own IPv4 subnets
	Controllers     []netip.AddrPort // always exempt
	// RemoteInterfaces are the names of the interfaces for remote access; a final * stands for any rest. RemoteAddresses are
	// those of Addresses that such interfaces have.
	RemoteInterfaces []string
	RemoteAddresses  []netip.Addr
	// Names are the addresses of DNS names. A name that is missing was never resolved; one that is there without an address
	// is known to have none.
	Names map[string][]netip.Addr
}
