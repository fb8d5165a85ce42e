package foreign

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Windows writes a policy as commands of PowerShell for Windows 8, Windows Server 2012 and later: neither netsh ipsec
// nor netsh advfirewall can ask for IKEv2, and netsh ipsec knows nothing beyond 3DES and SHA-1. Addresses stay symbolic,
// so that the commands are the same for every machine. The error wraps spd.ErrPolicy.
func Windows(p spd.Policy) (Config, error) {
	if err := p.Validate(); err != nil {
		return Config{}, err
	}
	w := &windows{policy: p}
	w.comment("PowerShell for a Windows peer under the policy %q: run it as administrator. netsh has no word for IKEv2, these commands do.", p.Name)
	w.comment("Remove everything again with: Get-NetIPsecRule -Group Bailiwick | Remove-NetIPsecRule, and the same with NetFirewallRule, " +
		"NetIPsecMainModeRule, NetIPsecMainModeCryptoSet, NetIPsecQuickModeCryptoSet and NetIPsecPhase1AuthSet")
	w.remark("", false, "Windows does not order rules by how specific they are: exemptions come before negotiation, and blocking before permitting")
	w.line("$ErrorActionPreference = 'Stop'")
	negotiates := p.DefaultResponse.Active
	for _, r := range p.Rules {
		negotiates = negotiates || r.Action.Action == spd.ActionNegotiate
	}
	if negotiates && !w.mainMode() {
		w.remark("", true, "nothing is negotiated: Windows knows none of the offers of keyExchange, it needs AES with SHA256 or SHA384 and modp2048, ecp256 or ecp384")
		return w.config(), nil
	}
	for _, r := range p.Rules {
		w.rule(r)
	}
	if p.DefaultResponse.Active {
		w.remark("", false, "the default response is left out: Windows since Vista has none, and the rules above answer as well")
	}
	if p.Exemptions.Multicast || p.Exemptions.Broadcast {
		w.remark("", false, "multicast and broadcast are never negotiated by Windows, so that they need no exemption")
	}
	for _, port := range p.Exemptions.BreakGlassTCP {
		w.line("New-NetIPsecRule -Group 'Bailiwick' -DisplayName %s -InboundSecurity None -OutboundSecurity None -Protocol TCP -LocalPort %d",
			shellText(fmt.Sprintf("%s: break glass %d", p.Name, port)), port)
	}
	return w.config(), nil
}

type windows struct {
	exporter
	policy spd.Policy
}

// shellText quotes for PowerShell: in single quotes nothing but the quote itself, of which it takes several kinds, means
// anything.
func shellText(s string) string {
	quoted := "'"
	for _, r := range s {
		if strings.ContainsRune("'‘’‚‛", r) {
			quoted += string(r)
		}
		quoted += string(r)
	}
	return quoted + "'"
}

// mainMode writes the settings of IKE for all peers; false if no offer is left.
func (w *windows) mainMode() bool {
	k := w.policy.KeyExchange
	var names []string
	for _, o := range k.Offers {
		hash := strings.ToUpper(o.Integrity.String())
		group := map[proposal.Group]string{proposal.GroupMODP2048: "DH14", proposal.GroupECP256: "DH19", proposal.GroupECP384: "DH20"}[o.Group]
		if o.Encryption != proposal.EncrAESCBC || group == "" || hash != "SHA256" && hash != "SHA384" || o.PRF.String() != hash || o.Additional != (proposal.Additional{}) {
			w.remark("", false, "the offer %s is left out: Windows does not know it in main mode", o)
			continue
		}
		name := fmt.Sprintf("$mm%d", len(names)+1)
		w.line("%s = New-NetIPsecMainModeCryptoProposal -Encryption AES%d -Hash %s -KeyExchange %s", name, o.KeyBits, hash, group)
		names = append(names, name)
	}
	if len(names) == 0 {
		return false
	}
	lifetime := k.Lifetime
	if lifetime == 0 {
		lifetime = proposal.DefaultIKELifetime
	}
	sessions := ""
	if k.ChildLimit > 0 {
		sessions = fmt.Sprintf(" -MaxSessions %d", k.ChildLimit)
	}
	w.line("$mainMode = New-NetIPsecMainModeCryptoSet -Group 'Bailiwick' -DisplayName %s -Proposal %s -MaxMinutes %d%s -ForceDiffieHellman $true",
		shellText(w.policy.Name), strings.Join(names, ","), minutes(lifetime), sessions)
	for _, unsaid := range []struct {
		set    bool
		weaker bool
		text   string
	}{
		{k.Transcript == spd.TranscriptRequire, true, "Windows does not authenticate the whole of IKE_SA_INIT (keyExchange.transcript), and nodes that require it refuse it"},
		{k.Revocation == spd.RevocationStrict, false, "strict revocation is a setting of the machine: Set-NetFirewallSetting -CertValidationLevel RequireCrlCheck"},
		{k.Reauthentication != 0, true, "an authentication counts as long as the IKE SA (keyExchange.reauthentication)"},
		{k.Mobility != spd.MobilityAllow, false, "Windows decides by itself whether tunnels move (keyExchange.mobility)"},
		{k.Childless == spd.ChildlessPrefer, false, "Windows does not make childless IKE SAs (keyExchange.childless)"},
	} {
		if unsaid.set {
			w.remark("", unsaid.weaker, "%s", unsaid.text)
		}
	}
	return true
}

func minutes(d time.Duration) int64 { return max(int64(d/time.Minute), 1) }

// quickMode writes the offers of a rule and returns the name of the set, empty if none is left.
func (w *windows) quickMode(r spd.Rule, n int) string {
	life := r.Action.Lifetime
	if life.Time == 0 {
		life.Time = proposal.DefaultChildLifetime
	}
	kilobytes := ""
	if life.Bytes != 0 {
		kilobytes = fmt.Sprintf(" -MaxKiloBytes %d", max(life.Bytes/1024, 20480))
	}
	var names []string
	var seen []proposal.ESP
	pfs := "None"
	for _, o := range r.Action.Offers {
		if group := map[proposal.Group]string{proposal.GroupMODP2048: "DH14", proposal.GroupECP256: "DH19", proposal.GroupECP384: "DH20"}[o.Group]; group != "" && pfs == "None" {
			pfs = group
		}
		plain := o
		plain.Group, plain.Additional = proposal.GroupNone, proposal.Additional{}
		if slices.Contains(seen, plain) {
			continue
		}
		seen = append(seen, plain)
		encryption, hash := "", ""
		switch {
		case o.Encryption == proposal.EncrAESGCM16:
			encryption = fmt.Sprintf("AESGCM%d", o.KeyBits)
			hash = encryption
		case o.Encryption == proposal.EncrNullAESGMAC:
			encryption, hash = "None", fmt.Sprintf("AESGMAC%d", o.KeyBits)
		case o.Integrity != proposal.IntegHMACSHA256128:
		case o.Encryption == proposal.EncrAESCBC:
			encryption, hash = fmt.Sprintf("AES%d", o.KeyBits), "SHA256"
		case o.Encryption == proposal.EncrNULL:
			encryption, hash = "None", "SHA256"
		}
		if encryption == "" {
			w.remark(r.Name, false, "the offer %s is left out: Windows does not know it", plain)
			continue
		}
		name := fmt.Sprintf("$qm%d_%d", n, len(names)+1)
		w.line("%s = New-NetIPsecQuickModeCryptoProposal -Encapsulation ESP -Encryption %s -ESPHash %s -MaxMinutes %d%s", name, encryption, hash, minutes(life.Time), kilobytes)
		names = append(names, name)
	}
	if r.Action.PFS && pfs == "None" {
		pfs = "SameAsMainMode"
	}
	if len(names) == 0 {
		return ""
	}
	set := fmt.Sprintf("$quick%d", n)
	w.line("%s = New-NetIPsecQuickModeCryptoSet -Group 'Bailiwick' -DisplayName %s -Proposal %s -PerfectForwardSecrecyGroup %s", set, shellText(w.policy.Name+": "+r.Name), strings.Join(names, ","), pfs)
	return set
}

// authentication writes the methods of a rule and returns the name of the set.
func (w *windows) authentication(r spd.Rule, n int) string {
	var names []string
	for i, a := range r.Auth {
		name := fmt.Sprintf("$auth%d_%d", n, i+1)
		switch a.Method {
		case spd.AuthPSK:
			w.remark(r.Name, false, "not every version of Windows takes preshared keys with IKEv2: see that an association comes up, and prefer certificates")
			w.line("%s = New-NetIPsecAuthProposal -Machine -PreSharedKey (Read-Host %s)", name, shellText("preshared key "+a.Secret))
		case spd.AuthCertificate:
			authority := "(Read-Host 'name of the authority of the fleet, as CN=..., O=...')"
			if a.CA != "" {
				authority = shellText(fromTop(a.CA, quoteName))
			}
			flags := " -Signing ECDSA256"
			if a.CA != "" {
				flags = ""
			}
			if a.AccountMapping {
				flags += " -AccountMapping"
			}
			if a.ExcludeCAName {
				flags += " -ExcludeCAName"
			}
			w.line("%s = New-NetIPsecAuthProposal -Machine -Cert -Authority %s -AuthorityType Root%s", name, authority, flags)
		}
		if a.LocalID != "" || a.RemoteID != "" {
			w.remark(r.Name, a.RemoteID != "", "identities cannot be named (localID %q, remoteID %q): Windows takes those of the certificate or the address", a.LocalID, a.RemoteID)
		}
		if a.PPK != "" {
			w.remark(r.Name, !a.PPKOptional, "the postquantum preshared key %q cannot be said", a.PPK)
		}
		names = append(names, name)
	}
	set := fmt.Sprintf("$auth%d", n)
	w.line("%s = New-NetIPsecPhase1AuthSet -Group 'Bailiwick' -DisplayName %s -Proposal %s", set, shellText(w.policy.Name+": "+r.Name), strings.Join(names, ","))
	return set
}

// quoteName quotes a value of a DN as Windows writes it.
func quoteName(s string) string {
	if !strings.ContainsAny(s, `,+="<>#;`) {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

func (w *windows) rule(r spd.Rule) {
	w.line("")
	w.comment("rule %q", r.Name)
	n := slices.IndexFunc(w.policy.Rules, func(o spd.Rule) bool { return o.ID == r.ID }) + 1
	var settings string
	switch r.Action.Action {
	case spd.ActionPermit:
		settings = "-InboundSecurity None -OutboundSecurity None"
	case spd.ActionBlock:
	default:
		quick := w.quickMode(r, n)
		if quick == "" {
			w.remark(r.Name, true, "is left out: Windows knows none of its offers")
			return
		}
		auth := w.authentication(r, n)
		in, out := "Require", "Require"
		if r.Action.Inpass {
			in = "Request"
		}
		switch r.Action.Fallback.Mode {
		case spd.FallbackWait:
			out = "Request"
			w.remark(r.Name, true, "Windows talks in clear at once and negotiates meanwhile, where the policy waits for an answer first (fallback: wait)")
		case spd.FallbackDiscover:
			out = "Request"
		case spd.FallbackNone:
			if in == "Request" {
				in = "Require"
				w.remark(r.Name, false, "packets that come in clear are dropped, where the policy accepts them (inpass): Windows cannot require security of what it sends alone")
			}
		}
		if out == "Request" && in == "Require" {
			w.comment("in clear to silent peers, but not from them")
		}
		settings = fmt.Sprintf("-InboundSecurity %s -OutboundSecurity %s -KeyModule IKEv2 -QuickModeCryptoSet %s.Name -Phase1AuthSet %s.Name", in, out, quick, auth)
		if r.Tunnel.IsValid() {
			settings += " -Mode Tunnel -RemoteTunnelEndpoint " + r.Tunnel.String()
			if r.TunnelLocal.IsValid() {
				settings += " -LocalTunnelEndpoint " + r.TunnelLocal.String()
			} else {
				settings += " -LocalTunnelEndpoint (Read-Host 'own endpoint of the tunnel')"
			}
		}
		if len(r.PeerGroups) > 0 {
			w.remark(r.Name, true, "every peer that authenticates is accepted, not only members of %s (peerGroups)", strings.Join(r.PeerGroups, "; "))
		}
		if r.Action.Associations > 1 {
			w.remark(r.Name, false, "one Child SA is made, not %d (associations)", r.Action.Associations)
		}
		w.line("New-NetIPsecMainModeRule -Group 'Bailiwick' -DisplayName %s -MainModeCryptoSet $mainMode.Name -Phase1AuthSet %s.Name", shellText(w.policy.Name+": "+r.Name), auth)
	}
	switch r.Interfaces {
	case spd.InterfacesLAN:
		settings += " -InterfaceType Wired"
	case spd.InterfacesRemoteAccess:
		settings += " -InterfaceType RemoteAccess"
	case spd.InterfacesAll:
	}
	for i, f := range r.Filters {
		w.filter(r, f, fmt.Sprintf("%s: %s %d", w.policy.Name, r.Name, i+1), strings.TrimSpace(settings))
	}
}

// filter writes one filter with the settings of its rule.
func (w *windows) filter(r spd.Rule, f spd.Filter, name, settings string) {
	if f.Source.Kind != spd.AddressMe && f.Destination.Kind == spd.AddressMe {
		f.Source, f.Destination = f.Destination, f.Source
		f.SourcePort, f.DestinationPort = f.DestinationPort, f.SourcePort
	}
	local, ok := windowsAddress(f.Source)
	// The servers of a machine are names for remote addresses alone.
	servers := f.Source.Kind == spd.AddressDNSServers || f.Source.Kind == spd.AddressDHCPServer || f.Source.Kind == spd.AddressDefaultGateway
	if !ok || servers {
		w.remark(r.Name, r.Action.Action != spd.ActionPermit, "the filter from %s is left out: Windows cannot name that address as its own", f.Source)
		return
	}
	remote, ok := windowsAddress(f.Destination)
	if !ok {
		w.remark(r.Name, r.Action.Action != spd.ActionPermit, "the filter to %s is left out: Windows cannot name that address", f.Destination)
		return
	}
	selectors := ""
	if local != "Any" {
		selectors += " -LocalAddress " + local
	}
	if remote != "Any" {
		selectors += " -RemoteAddress " + remote
	}
	if f.Protocol != 0 {
		selectors += " -Protocol " + windowsProtocol(f.Protocol)
	}
	if !f.SourcePort.Any() {
		selectors += " -LocalPort " + f.SourcePort.String()
	}
	if !f.DestinationPort.Any() {
		selectors += " -RemotePort " + f.DestinationPort.String()
	}
	if !f.Mirrored {
		w.remark(r.Name, r.Action.Action == spd.ActionPermit, "the filter from %s to %s is for one direction; here it is for both", f.Source, f.Destination)
	}
	if r.Action.Action != spd.ActionBlock {
		w.line("New-NetIPsecRule -Group 'Bailiwick' -DisplayName %s %s%s", shellText(name), settings, selectors)
		return
	}
	for _, direction := range []string{"Inbound", "Outbound"} {
		w.line("New-NetFirewallRule -Group 'Bailiwick' -DisplayName %s -Direction %s -Action Block%s", shellText(name+" "+strings.ToLower(direction)), direction,
			strings.TrimSuffix(" "+settings, " ")+selectors)
	}
}

func windowsProtocol(p uint8) string {
	switch p {
	case spd.ProtocolTCP:
		return "TCP"
	case spd.ProtocolUDP:
		return "UDP"
	case spd.ProtocolICMP:
		return "ICMPv4"
	case spd.ProtocolICMPv6:
		return "ICMPv6"
	}
	return fmt.Sprint(p)
}

// windowsAddress writes an address as -LocalAddress and -RemoteAddress take it.
func windowsAddress(a spd.Address) (string, bool) {
	switch a.Kind {
	case spd.AddressAny, spd.AddressMe:
		return "Any", true
	case spd.AddressPrefix:
		if a.Prefix.IsSingleIP() {
			return a.Prefix.Addr().String(), true
		}
		return a.Prefix.String(), true
	case spd.AddressRange:
		return a.From.String() + "-" + a.To.String(), true
	case spd.AddressDNSServers:
		return "DNS", true
	case spd.AddressDHCPServer:
		return "DHCP", true
	case spd.AddressDefaultGateway:
		return "DefaultGateway", true
	case spd.AddressName:
	}
	return "", false
}
