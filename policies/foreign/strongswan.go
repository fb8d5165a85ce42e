package foreign

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// StrongSwan writes a policy as swanctl.conf(5) of strongSwan 5.9 or later. The error wraps ErrMachine or spd.ErrPolicy.
func StrongSwan(p spd.Policy, m Machine) (Config, error) {
	if err := m.validate(); err != nil {
		return Config{}, err
	}
	set, err := spd.Expand(p, m.Facts)
	if err != nil {
		return Config{}, err
	}
	s := &strongSwan{machine: m, policy: p, names: slugs(p), secrets: map[string][]string{}}
	s.comment("swanctl.conf of strongSwan for %s under the policy %q. Load it with: swanctl --load-all", m.Name, p.Name)
	s.comment("The certificate of the machine goes to x509/machine.pem, its key to private/machine.pem, the authority of the fleet to x509ca/fleet.pem.")
	s.remark("", false, "strongSwan does not hear of the directory: a machine that was disabled there is accepted until its certificate ends or is revoked")
	s.keyExchange()
	byRule, exempt := s.flows(set)
	s.open("connections")
	for _, r := range p.Rules {
		if r.Action.Action == spd.ActionNegotiate && len(byRule[r.ID]) > 0 {
			s.rule(r, byRule[r.ID])
		}
	}
	s.shunts(byRule, exempt)
	if p.DefaultResponse.Active {
		s.defaultResponse()
	}
	s.close()
	s.secretSections()
	return s.config(), nil
}

type strongSwan struct {
	exporter
	machine Machine
	policy  spd.Policy
	names   map[string]string   // of rules
	secrets map[string][]string // identities that each preshared key is for, by its name
	ppks    []string
}

func (s *strongSwan) open(name string) {
	s.line("%s {", name)
	s.depth++
}

func (s *strongSwan) close() {
	s.depth--
	s.line("}")
}

// set writes a setting, its value in quotes.
func (s *strongSwan) set(key, value string) {
	s.line(`%s = "%s"`, key, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value))
}

// keyExchange remarks on what of the settings of IKE cannot be said.
func (s *strongSwan) keyExchange() {
	k := s.policy.KeyExchange
	if k.Transcript == spd.TranscriptRequire {
		s.remark("", true, "strongSwan does not authenticate the whole of IKE_SA_INIT (keyExchange.transcript), and nodes that require it refuse it")
	}
	if k.Mobility == spd.MobilityWithoutNAT {
		s.remark("", true, "associations move to a path with a NAT as well (keyExchange.mobility)")
	}
	if k.ChildLimit > 0 {
		s.remark("", true, "strongSwan makes any number of Child SAs from one key exchange unless a node makes it wait (keyExchange.childLimit)")
	}
	if k.AnnounceAuthentication {
		s.remark("", false, "strongSwan does not announce methods of authentication (keyExchange.announceAuthentication)")
	}
	if slices.ContainsFunc(k.Offers, func(o proposal.IKE) bool { return o.KeyExchange().PostQuantum() }) {
		s.remark("", false, "offers with ML-KEM need strongSwan 6.0 built with it; remove them for an older one, which refuses the file")
	}
}

// connection writes what rules and the default response share, before the children.
func (s *strongSwan) connection(rule string, local, remote string, auth []spd.Auth) {
	k := s.policy.KeyExchange
	s.line("version = 2")
	s.line("local_addrs = %s", local)
	s.line("remote_addrs = %s", remote)
	var offers []string
	for _, o := range k.Offers {
		offers = append(offers, strongSwanIKE(o))
	}
	s.line("proposals = %s", strings.Join(offers, ", "))
	lifetime := k.Lifetime
	if lifetime == 0 {
		lifetime = proposal.DefaultIKELifetime
	}
	s.line("rekey_time = %ds", seconds(lifetime*9/10))
	s.line("over_time = %ds", seconds(lifetime/10))
	if k.Reauthentication != 0 {
		s.line("reauth_time = %ds", seconds(k.Reauthentication*9/10))
	}
	if k.Mobility == spd.MobilityNever {
		s.line("mobike = no")
	}
	s.line("childless = %s", map[spd.Childless]string{spd.ChildlessAccept: "allow", spd.ChildlessPrefer: "prefer", spd.ChildlessNever: "never"}[k.Childless])
	if len(auth) > 1 {
		var others []string
		for _, a := range auth[1:] {
			others = append(others, a.Method.String()+" "+a.CA+a.Secret)
		}
		s.remark(rule, false, "only the first way to authenticate is said here, without: %s", strings.Join(others, "; "))
	}
	s.authentication(rule, auth[0])
}

func (s *strongSwan) authentication(rule string, a spd.Auth) {
	localID := s.machine.Name
	if a.LocalID != "" {
		localID = s.identity(rule, a.LocalID)
	}
	remoteID := "%any"
	if a.RemoteID != "" {
		remoteID = s.identity(rule, a.RemoteID)
	}
	if a.PPK != "" {
		s.set("ppk_id", a.PPK)
		s.line("ppk_required = %s", map[bool]string{false: "yes", true: "no"}[a.PPKOptional])
		if !slices.Contains(s.ppks, a.PPK) {
			s.ppks = append(s.ppks, a.PPK)
		}
	}
	method, authority := "pubkey", "fleet.pem"
	if a.Method == spd.AuthPSK {
		method = "psk"
		s.secrets[a.Secret] = append(s.secrets[a.Secret], localID, remoteID)
	}
	s.open("local")
	s.line("auth = %s", method)
	s.set("id", localID)
	if a.Method == spd.AuthCertificate {
		s.line("certs = machine.pem")
	}
	s.close()
	s.open("remote")
	s.line("auth = %s", method)
	s.set("id", remoteID)
	if a.Method == spd.AuthCertificate {
		if a.CA != "" {
			authority = slug(a.CA) + ".pem"
			s.comment("x509ca/%s is the certificate of %s", authority, a.CA)
		}
		s.line("cacerts = %s", authority)
		if s.policy.KeyExchange.Revocation == spd.RevocationStrict {
			s.line("revocation = strict")
		}
		if a.AccountMapping && a.CA != "" {
			s.remark(rule, true, "every certificate of %s is accepted, whether it names a machine of the directory or not (accountMapping)", a.CA)
		}
		if a.ExcludeCAName {
			s.remark(rule, true, "peers are told which authority is trusted (excludeCAName); set send_certreq = no where that matters more than interoperability")
		}
	}
	s.close()
}

// identity writes an identity. Commas and slashes separate the parts of a DN, and nothing escapes them.
func (s *strongSwan) identity(rule, id string) string {
	_, value := identity(id, func(value string) string {
		if strings.ContainsAny(value, ",/") {
			s.remark(rule, false, "strongSwan cannot read the part %q of a DN: write that identity as asn1dn:# and the octets of the name in hexadecimal", value)
		}
		return value
	})
	return value
}

func (s *strongSwan) rule(r spd.Rule, flows []flow) {
	s.open(s.names[r.ID])
	s.comment("rule %q", r.Name)
	local, remote := addressList(flows, func(f flow) spd.Range { return f.Source }), addressList(flows, func(f flow) spd.Range { return f.Destination })
	if r.Tunnel.IsValid() {
		local, remote = "%any", r.Tunnel.String()
		if r.TunnelLocal.IsValid() {
			local = r.TunnelLocal.String()
		}
	}
	s.connection(r.Name, local, remote, r.Auth)
	s.ruleRemarks(r)
	s.open("children")
	for i, f := range flows {
		s.open(fmt.Sprintf("%s-%d", s.names[r.ID], i+1))
		s.selectors(f)
		s.child(r.Action.Offers, r.Action.Lifetime, r.Tunnel.IsValid())
		s.line("priority = %d", priority(f))
		s.line("start_action = trap")
		s.close()
	}
	s.close()
	s.close()
}

// ruleRemarks tells what of a rule that negotiates cannot be said.
func (s *strongSwan) ruleRemarks(r spd.Rule) {
	if r.Action.Inpass {
		s.remark(r.Name, false, "packets that come in clear are dropped, where the policy accepts them (inpass)")
	}
	if r.Action.Fallback.Mode != spd.FallbackNone {
		s.remark(r.Name, false, "there is no talk in clear with a peer that is silent (fallback): packets are dropped")
	}
	if len(r.PeerGroups) > 0 {
		s.remark(r.Name, true, "every peer that authenticates is accepted, not only members of %s (peerGroups)", strings.Join(r.PeerGroups, "; "))
	}
	if r.Action.Associations > 1 {
		s.remark(r.Name, false, "one Child SA is made, not %d (associations)", r.Action.Associations)
	}
	if r.Interfaces != spd.InterfacesAll {
		s.remark(r.Name, false, "the rule holds on every interface, not only on those of class %s", r.Interfaces)
	}
}

// child writes the settings of a Child SA.
func (s *strongSwan) child(offers []proposal.ESP, life spd.Lifetime, tunnel bool) {
	var names []string
	for _, o := range offers {
		names = append(names, strongSwanESP(o))
	}
	s.line("esp_proposals = %s", strings.Join(names, ", "))
	if tunnel {
		s.line("mode = tunnel")
	} else {
		s.line("mode = transport")
	}
	if life.Time == 0 {
		life.Time = proposal.DefaultChildLifetime
	}
	s.line("life_time = %ds", seconds(life.Time))
	s.line("rekey_time = %ds", seconds(life.Time*9/10))
	if life.Bytes != 0 {
		s.line("life_bytes = %d", life.Bytes)
		s.line("rekey_bytes = %d", life.Bytes/10*9)
	}
}

// seconds is at least one: zero would mean never.
func seconds(d time.Duration) int64 { return max(int64(d/time.Second), 1) }

// priority makes the order of weight that of strongSwan, which takes the lowest number first.
func priority(f flow) int { return 1000 + f.place }

func (s *strongSwan) selectors(f flow) {
	s.line("local_ts = %s", selector(f, f.Source, f.SourcePort))
	s.line("remote_ts = %s", selector(f, f.Destination, f.DestinationPort))
}

func selector(f flow, r spd.Range, ports spd.PortRange) string {
	text := r.String()
	if p, ok := r.Prefix(); ok {
		text = p.String()
	}
	if f.Protocol == 0 {
		return text
	}
	port := ""
	switch {
	case !ports.Any():
		port = "/" + ports.String()
	case f.ICMP.Scope != spd.ICMPEvery:
		// strongSwan writes type and code of ICMP as one number.
		port = fmt.Sprintf("/%d", int(f.ICMP.Type)<<8|int(f.ICMP.Code))
	}
	return fmt.Sprintf("%s[%d%s]", text, f.Protocol, port)
}

// shunts writes what passes or is dropped without IKE.
func (s *strongSwan) shunts(byRule map[string][]flow, exempt []flow) {
	type shunt struct {
		flow
		name, mode string
	}
	var list []shunt
	for i, f := range exempt {
		list = append(list, shunt{f, fmt.Sprintf("%s-%d", f.Exempt, i+1), "pass"})
	}
	for _, r := range s.policy.Rules {
		mode := map[spd.Action]string{spd.ActionPermit: "pass", spd.ActionBlock: "drop"}[r.Action.Action]
		if mode == "" {
			continue
		}
		for i, f := range byRule[r.ID] {
			list = append(list, shunt{f, fmt.Sprintf("%s-%d", s.names[r.ID], i+1), mode})
		}
	}
	if len(list) == 0 {
		return
	}
	s.open("shunts")
	for _, r := range s.policy.Rules {
		if r.Interfaces != spd.InterfacesAll && r.Action.Action != spd.ActionNegotiate {
			s.remark(r.Name, r.Action.Action == spd.ActionPermit, "the rule holds on every interface, not only on those of class %s", r.Interfaces)
		}
	}
	s.line("remote_addrs = 127.0.0.1")
	s.open("children")
	for _, f := range list {
		s.open(f.name)
		s.selectors(f.flow)
		s.line("mode = %s", f.mode)
		s.line("priority = %d", priority(f.flow))
		s.line("start_action = trap")
		s.close()
	}
	s.close()
	s.close()
}

// defaultResponse answers peers for the two addresses of the IKE SA, and never asks.
func (s *strongSwan) defaultResponse() {
	d := s.policy.DefaultResponse
	s.open("default-response")
	s.comment("answers peers that ask for security where no rule covers them")
	s.connection("", "%any", "%any", d.Auth)
	s.open("children")
	s.open("default-response")
	s.line("local_ts = dynamic")
	s.line("remote_ts = dynamic")
	s.child(d.Offers, d.Lifetime, false)
	idle := d.Idle
	if idle == 0 {
		idle = 5 * time.Minute
	}
	s.line("inactivity = %ds", seconds(idle))
	s.close()
	s.close()
	s.close()
}

func (s *strongSwan) secretSections() {
	if len(s.secrets)+len(s.ppks) == 0 {
		return
	}
	s.open("secrets")
	for n, name := range sortedKeys(s.secrets) {
		s.open(fmt.Sprintf("ike-%d-%s", n+1, slug(name)))
		for i, id := range s.secrets[name] {
			if id != "%any" {
				s.set(fmt.Sprintf("id-%d", i), id)
			}
		}
		s.line("# secret = <the preshared key that policies call %s; nothing authenticates without it>", name)
		s.close()
	}
	for n, name := range s.ppks {
		s.open(fmt.Sprintf("ppk-%d-%s", n+1, slug(name)))
		s.set("id", name)
		s.line("# secret = <the postquantum preshared key that policies call %s>", name)
		s.close()
	}
	s.close()
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// addressList lists the addresses of one side of all flows, at most some: more are every address.
func addressList(flows []flow, side func(flow) spd.Range) string {
	const most = 16
	var out []string
	for _, f := range flows {
		for _, p := range prefixes(side(f)) {
			text := p.String()
			if p.Bits() == 0 {
				return "%any"
			}
			if p.IsSingleIP() {
				text = p.Addr().String()
			}
			if !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
	}
	if len(out) > most {
		return "%any"
	}
	return strings.Join(out, ", ")
}

var strongSwanGroups = map[proposal.Group]string{
	proposal.GroupMODP2048: "modp2048", proposal.GroupMODP3072: "modp3072", proposal.GroupMODP4096: "modp4096", proposal.GroupECP256: "ecp256",
	proposal.GroupECP384: "ecp384", proposal.GroupECP521: "ecp521", proposal.GroupX25519: "x25519", proposal.GroupMLKEM768: "mlkem768",
	proposal.GroupMLKEM1024: "mlkem1024",
}

func strongSwanKeyExchange(k proposal.KeyExchange) string {
	text := strongSwanGroups[k.Group]
	for i, g := range k.Additional.Methods() {
		text += fmt.Sprintf("-ke%d_%s", i+1, strongSwanGroups[g])
	}
	return text
}

func strongSwanCipher(e proposal.Encryption, bits uint16) string {
	switch e {
	case proposal.EncrAESGCM16:
		return fmt.Sprintf("aes%dgcm16", bits)
	case proposal.EncrNullAESGMAC:
		return fmt.Sprintf("aes%dgmac", bits)
	case proposal.EncrChaCha20Poly1305:
		return "chacha20poly1305"
	case proposal.EncrNULL:
		return "null"
	case proposal.EncrAESCBC:
	}
	return fmt.Sprintf("aes%d", bits)
}

func strongSwanIKE(o proposal.IKE) string {
	text := strongSwanCipher(o.Encryption, o.KeyBits)
	if o.Integrity != proposal.IntegNone {
		text += "-" + strings.ToLower(o.Integrity.String())
	}
	return text + "-prf" + strings.ToLower(o.PRF.String()) + "-" + strongSwanKeyExchange(o.KeyExchange())
}

func strongSwanESP(o proposal.ESP) string {
	text := strongSwanCipher(o.Encryption, o.KeyBits)
	if o.Integrity != proposal.IntegNone {
		text += "-" + strings.ToLower(o.Integrity.String())
	}
	if o.Group != proposal.GroupNone {
		text += "-" + strongSwanKeyExchange(o.KeyExchange())
	}
	return text
}
