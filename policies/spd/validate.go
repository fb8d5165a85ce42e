package spd

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// Validate reports everything that keeps the policy from being put into force, joined into one error that wraps
// ErrPolicy. Every node checks it again before it expands a policy, whoever sent it.
func (p Policy) Validate() error {
	var problems []error
	report := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%w %q: %w", ErrPolicy, p.Name, fmt.Errorf(format, args...)))
	}
	rules, filters := map[string]bool{}, map[string]bool{}
	negotiates := p.DefaultResponse.Active
	for i, r := range p.Rules {
		name := fmt.Sprintf("rule %q", r.ID)
		if r.ID == "" {
			name = fmt.Sprintf("rule %d", i+1)
			report("%s has no ID", name)
		} else if rules[r.ID] {
			report("%s: the ID is used twice", name)
		}
		rules[r.ID] = true
		negotiates = negotiates || r.Action.Action == ActionNegotiate
		r.validate(func(format string, args ...any) { report(name+": "+format, args...) })
		for j, f := range r.Filters {
			name := fmt.Sprintf("%s, filter %q", name, f.ID)
			if f.ID == "" {
				name = fmt.Sprintf("%s, filter %d", name, j+1)
				report("%s has no ID", name)
			} else if filters[f.ID] {
				report("%s: the ID is used twice", name)
			}
			filters[f.ID] = true
			f.validate(r, func(format string, args ...any) { report(name+": "+format, args...) })
		}
	}
	p.DefaultResponse.validate(func(format string, args ...any) { report("default response: "+format, args...) })
	p.KeyExchange.validate(negotiates, func(format string, args ...any) { report("key exchange: "+format, args...) })
	ports := map[uint16]bool{}
	for _, port := range p.Exemptions.BreakGlassTCP {
		if port == 0 || ports[port] {
			report("exemptions: break-glass TCP port %d is zero or listed twice", port)
		}
		ports[port] = true
	}
	if n := len(p.HostNames()); n > MaxHostNames {
		report("%d DNS names, at most %d are possible", n, MaxHostNames)
	}
	return errors.Join(problems...)
}

type reporter func(format string, args ...any)

func (r Rule) validate(report reporter) {
	if len(r.Filters) == 0 {
		report("has no filters")
	}
	if r.Interfaces > InterfacesRemoteAccess {
		report("unknown interface class %s", r.Interfaces)
	}
	a := r.Action
	switch a.Action {
	case ActionBlock, ActionPermit:
		if a.Inpass || a.Fallback != (Fallback{}) || len(a.Offers) > 0 || a.PFS || a.Associations > 0 || a.Lifetime != (Lifetime{}) ||
			len(r.Auth) > 0 || len(r.PeerGroups) > 0 {
			report("action %s with settings that only negotiate has", a.Action)
		}
		if r.Tunnel.IsValid() {
			report("a tunnel with action %s; a tunnel negotiates", a.Action)
		}
	case ActionNegotiate:
		validateOffers(a.Offers, report)
		validateAuth(r.Auth, report)
		a.Fallback.validate(report)
		a.Lifetime.validate(report)
		if a.Associations > MaxAssociations {
			report("%d associations, at most %d are possible", a.Associations, MaxAssociations)
		}
	default:
		report("unknown action %s", a.Action)
	}
	r.validateTunnel(report)
	r.validateGroups(report)
}

// validateGroups wants that nobody gets past the groups: only a certificate says which machine of the directory a peer
// is, and clear traffic to a silent peer is for everybody.
func (r Rule) validateGroups(report reporter) {
	if len(r.PeerGroups) == 0 {
		return
	}
	if len(r.PeerGroups) > MaxPeerGroups {
		report("%d groups of peers, at most %d are possible", len(r.PeerGroups), MaxPeerGroups)
	}
	for i, g := range r.PeerGroups {
		if g == "" || len(g) > MaxGroupLength {
			report("group %d of peers has a name of %d octets, of 1 to %d are possible", i+1, len(g), MaxGroupLength)
		}
		if slices.Contains(r.PeerGroups[:i], g) {
			report("group %q of peers stands twice", g)
		}
	}
	for _, a := range r.Auth {
		if a.Method != AuthCertificate {
			report("groups of peers with authentication by %s; only a certificate says which machine of the directory a peer is", a.Method)
		}
	}
	if r.Action.Fallback.Mode != FallbackNone {
		report("groups of peers with clear traffic to silent ones, which would be for everybody")
	}
}

func (r Rule) validateTunnel(report reporter) {
	if !r.Tunnel.IsValid() {
		if r.TunnelLocal.IsValid() {
			report("own tunnel endpoint %s without a remote one", r.TunnelLocal)
		}
		return
	}
	if !endpointAddress(r.Tunnel) {
		report("remote tunnel endpoint %s is not a plain unicast address", r.Tunnel)
	}
	if r.TunnelLocal.IsValid() && (!endpointAddress(r.TunnelLocal) || r.TunnelLocal.Is4() != r.Tunnel.Is4()) {
		report("own tunnel endpoint %s is not a plain unicast address of the family of %s", r.TunnelLocal, r.Tunnel)
	}
	if r.Action.Inpass || r.Action.Fallback.Mode != FallbackNone {
		report("a tunnel with inpass or fallback; what belongs into a tunnel never travels in clear")
	}
}

func endpointAddress(a netip.Addr) bool {
	return a.Zone() == "" && !a.Is4In6() && !a.IsMulticast() && !a.IsUnspecified() && !a.IsLoopback()
}

func validateOffers(offers []proposal.ESP, report reporter) {
	if len(offers) == 0 {
		report("negotiates without an offer")
	}
	for i, o := range offers {
		if err := o.Validate(); err != nil {
			report("offer %d: %w", i+1, err)
		}
		if o.ESN {
			report("offer %d: extended sequence numbers are negotiated, not offered by a policy", i+1)
		}
	}
}

func validateAuth(auth []Auth, report reporter) {
	if len(auth) == 0 {
		report("negotiates without an authentication method")
	}
	for i, a := range auth {
		switch a.Method {
		case AuthCertificate:
			if a.Secret != "" {
				report("authentication %d: a certificate with a secret", i+1)
			}
		case AuthPSK:
			if a.Secret == "" {
				report("authentication %d: a preshared key without the name of a secret", i+1)
			}
			if a.CA != "" {
				report("authentication %d: a preshared key with a CA", i+1)
			}
			if a.AccountMapping || a.ExcludeCAName {
				report("authentication %d: a preshared key with settings that only certificates have", i+1)
			}
		default:
			report("authentication %d: unknown method %s", i+1, a.Method)
		}
		if a.PPKOptional && a.PPK == "" {
			report("authentication %d: a postquantum preshared key is optional, but none is named", i+1)
		}
		if len(a.PPK) > MaxPPKName {
			report("authentication %d: the name of a postquantum preshared key has %d octets, more than %d", i+1, len(a.PPK), MaxPPKName)
		}
	}
}

func (f Fallback) validate(report reporter) {
	if f.Mode > FallbackDiscover {
		report("unknown fallback %s", f.Mode)
	}
	if f.Delay < 0 || f.TTL < 0 {
		report("fallback delay %s or life %s is negative", f.Delay, f.TTL)
	}
	if f.Mode == FallbackNone && f != (Fallback{}) || f.Mode == FallbackDiscover && f.Delay != 0 {
		report("fallback %s with a delay or a life that it does not have", f.Mode)
	}
}

// MinLifetime is the shortest lifetime of an SA that a policy may ask for. Shorter ones rekey without end.
const MinLifetime = time.Second

const (
	// MaxReauthentication is the longest time for which an authentication can be made to count.
	MaxReauthentication = 365 * 24 * time.Hour
	// MaxPPKName is the longest name of a postquantum preshared key, in octets: it travels in every IKE_AUTH.
	MaxPPKName = 64
)

func (l Lifetime) validate(report reporter) {
	if l.Time != 0 && l.Time < MinLifetime {
		report("lifetime %s is below %s", l.Time, MinLifetime)
	}
}

func (d DefaultResponse) validate(report reporter) {
	if d.Active {
		validateOffers(d.Offers, report)
		validateAuth(d.Auth, report)
	} else if len(d.Offers) > 0 || len(d.Auth) > 0 || d.PFS || d.Lifetime != (Lifetime{}) || d.Idle != 0 {
		report("not active, but with settings")
	}
	d.Lifetime.validate(report)
	if d.Idle < 0 {
		report("idle time %s is negative", d.Idle)
	}
}

func (k KeyExchange) validate(needed bool, report reporter) {
	if needed && len(k.Offers) == 0 {
		report("no offer, but the policy negotiates")
	}
	for i, o := range k.Offers {
		if err := o.Validate(); err != nil {
			report("offer %d: %w", i+1, err)
		}
	}
	if k.Childless > ChildlessNever {
		report("%s is unknown", k.Childless)
	}
	if k.Revocation > RevocationStrict {
		report("%s is unknown", k.Revocation)
	}
	if k.Reauthentication != 0 && (k.Reauthentication < MinLifetime || k.Reauthentication > MaxReauthentication) {
		report("reauthentication %s is not between %s and %s", k.Reauthentication, MinLifetime, MaxReauthentication)
	}
	if k.ChildLimit < 0 || k.ChildLimit > MaxChildLimit {
		report("child limit %d is not between 0 and %d", k.ChildLimit, MaxChildLimit)
	}
	if k.Transcript > TranscriptNever {
		report("%s is unknown", k.Transcript)
	}
	if k.Mobility > MobilityNever {
		report("%s is unknown", k.Mobility)
	}
	if k.Lifetime != 0 && k.Lifetime < MinLifetime {
		report("lifetime %s is below %s", k.Lifetime, MinLifetime)
	}
}

func (f Filter) validate(r Rule, report reporter) {
	f.Source.validate("source", report)
	f.Destination.validate("destination", report)
	if s, d := f.Source.family(), f.Destination.family(); s != 0 && d != 0 && s != d {
		report("source %s and destination %s are of different families", f.Source, f.Destination)
	}
	for _, side := range []struct {
		name  string
		ports PortRange
	}{{"source", f.SourcePort}, {"destination", f.DestinationPort}} {
		if side.ports.Any() {
			continue
		}
		if side.ports.From == 0 || side.ports.From > side.ports.To {
			report("%s ports %d-%d are not a range within 1-65535", side.name, side.ports.From, side.ports.To)
		}
		if !HasPorts(f.Protocol) {
			report("%s port with protocol %s, which has none; name tcp, udp, udp-lite, sctp or dccp", side.name, ProtocolName(f.Protocol))
		}
	}
	if r.Tunnel.IsValid() && (f.Protocol != 0 || !f.SourcePort.Any() || !f.DestinationPort.Any()) {
		report("a tunnel with protocol or ports; tunnel filters are of addresses only")
	}
	if r.Action.Action == ActionNegotiate {
		for _, a := range []Address{f.Source, f.Destination} {
			if a.group() {
				report("negotiates with %s; IKE cannot negotiate with multicast or broadcast", a)
			}
		}
	}
}

func (a Address) validate(side string, report reporter) {
	switch a.Kind {
	case AddressName:
		if err := CheckHostName(a.Name); err != nil {
			report("%s: %w", side, err)
		} else if a != (Address{Kind: a.Kind, Name: a.Name}) {
			report("%s %s with addresses", side, a)
		}
		return
	case AddressAny, AddressMe, AddressDNSServers, AddressDHCPServer, AddressDefaultGateway:
		if a != (Address{Kind: a.Kind, Name: a.Name}) {
			report("%s %s with addresses", side, a.Kind)
		}
	case AddressPrefix:
		if !a.Prefix.IsValid() || a.Prefix.Masked() != a.Prefix || a.Prefix.Addr().Is4In6() {
			report("%s %s is not a prefix with zero host bits", side, a.Prefix)
		} else if a.From.IsValid() || a.To.IsValid() {
			report("%s %s with a range", side, a.Prefix)
		}
	case AddressRange:
		if !plain(a.From) || !plain(a.To) || a.From.Is4() != a.To.Is4() || a.To.Less(a.From) {
			report("%s range %s-%s is not of one family and in order", side, a.From, a.To)
		} else if a.Prefix != (netip.Prefix{}) {
			report("%s range %s-%s with a prefix", side, a.From, a.To)
		}
	default:
		report("%s: unknown kind %s", side, a.Kind)
	}
	if a.Name != "" {
		report("%s %s with a DNS name", side, a)
	}
}

func plain(a netip.Addr) bool { return a.IsValid() && a.Zone() == "" && !a.Is4In6() }

// family returns 4 or 6, or 0 for an address that can be of both.
func (a Address) family() int {
	probe := a.From
	if a.Kind == AddressPrefix {
		probe = a.Prefix.Addr()
	}
	switch {
	case !probe.IsValid():
		return 0
	case probe.Is4():
		return 4
	}
	return 6
}

// group reports whether every address is a multicast or limited broadcast address. A wider range may contain some;
// packets to those are dropped when they are looked up.
func (a Address) group() bool {
	var r Range
	switch a.Kind {
	case AddressPrefix:
		if !a.Prefix.IsValid() {
			return false
		}
		r = RangeOf(a.Prefix.Masked())
	case AddressRange:
		r = Range{a.From, a.To}
	default:
		return false
	}
	for _, g := range []Range{multicast4, multicast6, broadcast4} {
		if g.Contains(r.From) && g.Contains(r.To) {
			return true
		}
	}
	return false
}
