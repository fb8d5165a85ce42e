package foreign

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Libreswan writes a policy as ipsec.conf(5) of libreswan 4.10 or later. The error wraps ErrMachine or spd.ErrPolicy.
func Libreswan(p spd.Policy, m Machine) (Config, error) {
	if err := m.validate(); err != nil {
		return Config{}, err
	}
	set, err := spd.Expand(p, m.Facts)
	if err != nil {
		return Config{}, err
	}
	l := &libreswan{machine: m, policy: p, names: slugs(p)}
	l.comment("ipsec.conf of libreswan for %s under the policy %q: /etc/ipsec.d/bailiwick.conf", m.Name, p.Name)
	l.comment("The certificate of the machine has the nickname %q in the NSS database, the authority of the fleet is trusted there: ipsec import FILE.p12", m.Name)
	l.remark("", false, "libreswan does not hear of the directory: a machine that was disabled there is accepted until its certificate ends or is revoked")
	l.keyExchange()
	byRule, exempt := l.flows(set)
	for i, f := range exempt {
		l.shunt(fmt.Sprintf("%s-%d", f.Exempt, i+1), "", f, "passthrough")
	}
	for _, r := range p.Rules {
		for i, f := range byRule[r.ID] {
			name := fmt.Sprintf("%s-%d", l.names[r.ID], i+1)
			switch r.Action.Action {
			case spd.ActionPermit:
				l.shunt(name, r.Name, f, "passthrough")
			case spd.ActionBlock:
				l.shunt(name, r.Name, f, "drop")
			default:
				l.negotiate(name, r, f)
			}
		}
	}
	if p.DefaultResponse.Active {
		l.defaultResponse()
	}
	return l.config(), nil
}

type libreswan struct {
	exporter
	machine Machine
	policy  spd.Policy
	names   map[string]string // of rules
	told    []string          // secrets whose place was told
}

func (l *libreswan) keyExchange() {
	k := l.policy.KeyExchange
	if k.Transcript == spd.TranscriptRequire {
		l.remark("", true, "libreswan does not authenticate the whole of IKE_SA_INIT (keyExchange.transcript), and nodes that require it refuse it")
	}
	if k.Mobility == spd.MobilityWithoutNAT {
		l.remark("", true, "associations move to a path with a NAT as well (keyExchange.mobility)")
	}
	if k.Childless == spd.ChildlessPrefer {
		l.remark("", false, "libreswan does not make childless IKE SAs (keyExchange.childless)")
	}
	if k.ChildLimit > 0 {
		l.remark("", true, "libreswan makes any number of Child SAs from one key exchange unless a node makes it wait (keyExchange.childLimit)")
	}
	if k.AnnounceAuthentication {
		l.remark("", false, "libreswan does not announce methods of authentication (keyExchange.announceAuthentication)")
	}
	if k.Revocation == spd.RevocationStrict {
		l.comment(`strict revocation is a setting of "config setup": crl-strict=yes`)
	}
}

// open begins a connection.
func (l *libreswan) open(name string) {
	l.line("")
	l.line("conn %s", name)
	l.depth = 2
}

func (l *libreswan) close() { l.depth = 0 }

// set writes a setting, its value in quotes where it needs them.
func (l *libreswan) set(key, value string) {
	if strings.ContainsFunc(value, func(r rune) bool { return r == ' ' || r == '"' || r == '#' || r == '\'' }) {
		value = `"` + strings.ReplaceAll(value, `"`, `\"`) + `"`
	}
	l.line("%s=%s", key, value)
}

// sides writes the selectors. It reports false, with a remark, for what cannot be said.
func (l *libreswan) sides(rule string, f flow, tunnel bool) bool {
	source, destination := prefixes(f.Source), prefixes(f.Destination)
	if len(source) != 1 || len(destination) != 1 {
		l.remark(rule, f.Action != spd.ActionPermit, "the filter %s is left out: %s to %s is no pair of prefixes", f.FilterID, f.Source, f.Destination)
		return false
	}
	protoports := map[string]string{}
	for side, ports := range map[string]spd.PortRange{"left": f.SourcePort, "right": f.DestinationPort} {
		switch {
		case f.Protocol == 0:
			continue
		case f.ICMP.Scope != spd.ICMPEvery:
			l.remark(rule, f.Action != spd.ActionPermit, "the filter %s is left out: types of ICMP cannot be named", f.FilterID)
			return false
		case ports.Any():
			protoports[side] = fmt.Sprintf("%d/0", f.Protocol) // port 0 is every port; %any is one that the peer chooses
		case ports.From == ports.To:
			protoports[side] = fmt.Sprintf("%d/%d", f.Protocol, ports.From)
		default:
			l.remark(rule, f.Action != spd.ActionPermit, "the filter %s is left out: ranges of ports, as %s, cannot be named", f.FilterID, ports)
			return false
		}
	}
	if tunnel || !source[0].IsSingleIP() {
		l.set("leftsubnet", source[0].String())
	}
	if tunnel || !destination[0].IsSingleIP() {
		l.set("rightsubnet", destination[0].String())
	}
	for _, side := range sortedKeys(protoports) {
		l.set(side+"protoport", protoports[side])
	}
	return true
}

// attempt writes a connection and takes it back where some of it cannot be said; remarks stay.
func (l *libreswan) attempt(name string, write func() bool) {
	before := l.text.String()
	remarks := len(l.remarks)
	l.open(name)
	ok := write()
	l.close()
	if ok {
		return
	}
	l.text.Reset()
	l.text.WriteString(before)
	l.line("")
	for _, r := range l.remarks[remarks:] {
		l.comment("%s", r)
	}
}

func (l *libreswan) shunt(name, rule string, f flow, kind string) {
	l.attempt(name, func() bool {
		if rule != "" {
			l.comment("rule %q", rule)
		}
		l.set("left", l.own(f))
		right := "0.0.0.0"
		if !f.Destination.Is4() {
			right = "::"
		}
		if f.Destination.Single() {
			right = f.Destination.From.String()
		}
		l.set("right", right)
		if !l.sides(rule, f, !f.Destination.Single()) {
			return false
		}
		l.set("type", kind)
		l.set("authby", "never")
		l.set("priority", fmt.Sprint(priority(f)))
		l.set("auto", "route")
		return true
	})
}

// own is the machine's own end of a flow.
func (l *libreswan) own(f flow) string {
	if f.Source.Single() {
		return f.Source.From.String()
	}
	for _, a := range l.machine.Facts.Addresses {
		if a.Is4() == f.Source.Is4() {
			return a.String()
		}
	}
	return "%defaultroute"
}

func (l *libreswan) negotiate(name string, r spd.Rule, f flow) {
	l.attempt(name, func() bool {
		l.comment("rule %q", r.Name)
		group := false
		switch {
		case r.Tunnel.IsValid():
			left := l.own(f)
			if r.TunnelLocal.IsValid() {
				left = r.TunnelLocal.String()
			}
			l.set("left", left)
			l.set("right", r.Tunnel.String())
			l.set("type", "tunnel")
		case f.Destination.Single():
			l.set("left", l.own(f))
			l.set("right", f.Destination.From.String())
			l.set("type", "transport")
		default:
			// Many peers are a group: a conn of that name, and the networks in a file.
			group = true
			l.set("left", l.own(f))
			l.set("right", "%opportunisticgroup")
			l.set("type", "transport")
		}
		if group {
			if !l.groupFile(name, r.Name, f) {
				return false
			}
		} else if !l.sides(r.Name, f, r.Tunnel.IsValid()) {
			return false
		}
		l.authentication(r.Name, r.Auth, group)
		if !l.offers(r.Name, r.Action.Offers) {
			return false
		}
		l.lifetimes(r.Action.Lifetime)
		l.set("pfs", yes(r.Action.PFS))
		l.set("priority", fmt.Sprint(priority(f)))
		l.fallback(r)
		if len(r.PeerGroups) > 0 {
			l.remark(r.Name, true, "every peer that authenticates is accepted, not only members of %s (peerGroups)", strings.Join(r.PeerGroups, "; "))
		}
		if r.Action.Associations > 1 {
			l.remark(r.Name, false, "one Child SA is made, not %d (associations)", r.Action.Associations)
		}
		if r.Interfaces != spd.InterfacesAll {
			l.remark(r.Name, false, "the rule holds on every interface, not only on those of class %s", r.Interfaces)
		}
		l.set("auto", "ondemand")
		return true
	})
}

// groupFile tells what the file of a group has to hold.
func (l *libreswan) groupFile(name, rule string, f flow) bool {
	if !f.SourcePort.Any() && f.SourcePort.From != f.SourcePort.To || !f.DestinationPort.Any() && f.DestinationPort.From != f.DestinationPort.To || f.ICMP.Scope != spd.ICMPEvery {
		l.remark(rule, true, "the filter %s is left out: ranges of ports and types of ICMP cannot be named", f.FilterID)
		return false
	}
	l.comment("/etc/ipsec.d/policies/%s holds these lines:", name)
	for _, p := range prefixes(f.Destination) {
		suffix := ""
		if f.Protocol != 0 {
			suffix = fmt.Sprintf(" %d %d %d", f.Protocol, f.SourcePort.From, f.DestinationPort.From)
		}
		l.line("#   %s%s", p, suffix)
	}
	return true
}

func (l *libreswan) fallback(r spd.Rule) {
	if r.Action.Inpass {
		l.remark(r.Name, false, "packets that come in clear are dropped, where the policy accepts them (inpass)")
	}
	l.set("negotiationshunt", "hold")
	switch r.Action.Fallback.Mode {
	case spd.FallbackNone:
		l.set("failureshunt", "drop")
	default:
		l.remark(r.Name, false, "there is no talk in clear with a peer that is silent (fallback): libreswan would grant it to peers that fail as well")
		l.set("failureshunt", "drop")
	}
}

func (l *libreswan) authentication(rule string, auth []spd.Auth, group bool) {
	a := auth[0]
	if len(auth) > 1 {
		l.remark(rule, false, "only the first way to authenticate is said here, %s", a.Method)
	}
	leftID, rightID := "@"+l.machine.Name, "%fromcert"
	if a.LocalID != "" {
		leftID = libreswanID(a.LocalID)
	}
	if a.RemoteID != "" {
		rightID = libreswanID(a.RemoteID)
	}
	if a.Method == spd.AuthPSK {
		l.set("authby", "secret")
		l.set("leftid", leftID)
		if a.RemoteID != "" {
			l.set("rightid", rightID)
		}
		if !slices.Contains(l.told, a.Secret) {
			l.told = append(l.told, a.Secret)
		}
		l.comment(`the preshared key that policies call %s goes into /etc/ipsec.d/bailiwick.secrets, as: %s %s : PSK "..."`, a.Secret, leftID, strings.TrimPrefix(rightID, "%fromcert"))
	} else {
		l.set("authby", "ecdsa,rsa-sha2")
		l.set("leftcert", l.machine.Name)
		l.set("leftid", leftID)
		l.set("rightid", rightID)
		l.set("rightca", "%same")
		if a.CA != "" {
			l.set("rightca", fromTop(a.CA, doubleCommas))
		}
		if group {
			l.comment("peers of a group are known by their certificates alone")
		}
		if a.AccountMapping && a.CA != "" {
			l.remark(rule, true, "every certificate of %s is accepted, whether it names a machine of the directory or not (accountMapping)", a.CA)
		}
		if a.ExcludeCAName {
			l.set("sendca", "none")
		}
	}
	if a.PPK != "" {
		l.set("ppk", map[bool]string{false: "insist", true: "yes"}[a.PPKOptional])
		l.comment(`the postquantum preshared key goes into /etc/ipsec.d/bailiwick.secrets, as: %s : PPKS "%s" "..."`, leftID, a.PPK)
	}
	l.set("ikev2", "yes")
	if l.policy.KeyExchange.Mobility != spd.MobilityNever {
		l.set("mobike", "yes")
	}
}

// doubleCommas escapes a value of a DN as libreswan wants it.
func doubleCommas(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// libreswanID writes an identity as libreswan tells kinds apart.
func libreswanID(id string) string {
	kind, value := identity(id, doubleCommas)
	if kind == "fqdn" {
		return "@" + value
	}
	return value
}

func yes(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

func (l *libreswan) lifetimes(life spd.Lifetime) {
	k := l.policy.KeyExchange
	ike := k.Lifetime
	if ike == 0 {
		ike = proposal.DefaultIKELifetime
	}
	l.set("ikelifetime", fmt.Sprintf("%ds", seconds(ike)))
	if life.Time == 0 {
		life.Time = proposal.DefaultChildLifetime
	}
	l.set("salifetime", fmt.Sprintf("%ds", seconds(life.Time)))
	if life.Bytes != 0 {
		l.set("ipsec-max-bytes", fmt.Sprint(life.Bytes))
	}
	if k.Reauthentication != 0 {
		l.set("reauth", "yes")
		l.set("ikelifetime", fmt.Sprintf("%ds", seconds(k.Reauthentication)))
	}
}

// offers writes those that libreswan knows. It reports false where none is left.
func (l *libreswan) offers(rule string, esp []proposal.ESP) bool {
	var ikes, esps []string
	for _, o := range l.policy.KeyExchange.Offers {
		if text, ok := libreswanIKE(o); ok {
			ikes = append(ikes, text)
		} else {
			l.remark("", false, "the offer %s is left out: libreswan does not know it", o)
		}
	}
	for _, o := range esp {
		if text, ok := libreswanESP(o); ok {
			esps = append(esps, text)
		} else {
			l.remark(rule, false, "the offer %s is left out: libreswan does not know it", o)
		}
	}
	if len(ikes) == 0 || len(esps) == 0 {
		l.remark(rule, true, "is left out: libreswan knows none of its offers")
		return false
	}
	l.set("ike", strings.Join(ikes, ","))
	l.set("esp", strings.Join(slices.Compact(esps), ","))
	return true
}

func (l *libreswan) defaultResponse() {
	d := l.policy.DefaultResponse
	l.attempt("default-response", func() bool {
		l.comment("answers peers that ask for security where no rule covers them")
		l.set("left", l.machine.Facts.Addresses[0].String())
		l.set("right", "%any")
		l.set("type", "transport")
		l.authentication("", d.Auth, false)
		if !l.offers("", d.Offers) {
			return false
		}
		l.lifetimes(d.Lifetime)
		l.set("pfs", yes(d.PFS))
		l.set("auto", "add")
		return true
	})
}

var libreswanGroups = map[proposal.Group]string{
	proposal.GroupMODP2048: "dh14", proposal.GroupMODP3072: "dh15", proposal.GroupMODP4096: "dh16", proposal.GroupECP256: "dh19",
	proposal.GroupECP384: "dh20", proposal.GroupECP521: "dh21", proposal.GroupX25519: "dh31",
}

func libreswanCipher(e proposal.Encryption, bits uint16) (string, bool) {
	switch e {
	case proposal.EncrAESGCM16:
		return fmt.Sprintf("aes_gcm%d", bits), true
	case proposal.EncrAESCBC:
		return fmt.Sprintf("aes%d", bits), true
	case proposal.EncrChaCha20Poly1305:
		return "chacha20_poly1305", true
	case proposal.EncrNULL:
		return "null", true
	case proposal.EncrNullAESGMAC:
	}
	return "", false
}

var libreswanHashes = map[string]string{"SHA256": "sha2_256", "SHA384": "sha2_384", "SHA512": "sha2_512"}

func libreswanIKE(o proposal.IKE) (string, bool) {
	cipher, ok := libreswanCipher(o.Encryption, o.KeyBits)
	group, known := libreswanGroups[o.Group]
	if !ok || !known || o.Additional != (proposal.Additional{}) || o.Integrity != proposal.IntegNone && o.Integrity.String() != o.PRF.String() {
		return "", false
	}
	return cipher + "-" + libreswanHashes[o.PRF.String()] + "-" + group, true
}

func libreswanESP(o proposal.ESP) (string, bool) {
	text, ok := libreswanCipher(o.Encryption, o.KeyBits)
	if !ok || o.Additional != (proposal.Additional{}) {
		return "", false
	}
	if o.Integrity != proposal.IntegNone {
		text += "-" + libreswanHashes[o.Integrity.String()]
	}
	if o.Group != proposal.GroupNone {
		group, known := libreswanGroups[o.Group]
		if !known {
			return "", false
		}
		text += "-" + group
	}
	return text, true
}
