package spd

import (
	"fmt"
	"slices"
	"strings"
)

// String names the address kind as documents do.
func (k AddressKind) String() string {
	switch k {
	case AddressAny:
		return "any"
	case AddressMe:
		return "me"
	case AddressPrefix:
		return "prefix"
	case AddressRange:
		return "range"
	case AddressDNSServers:
		return "dns-servers"
	case AddressDHCPServer:
		return "dhcp-server"
	case AddressDefaultGateway:
		return "default-gateway"
	case AddressName:
		return "dns"
	}
	return fmt.Sprintf("address(%d)", uint8(k))
}

var childlessNames = [...]string{"accept", "prefer", "never"}

// String names the setting as documents do.
func (c Childless) String() string {
	if int(c) < len(childlessNames) {
		return childlessNames[c]
	}
	return fmt.Sprintf("childless(%d)", uint8(c))
}

// ParseChildless reads the name of a setting.
func ParseChildless(s string) (Childless, error) {
	i := slices.Index(childlessNames[:], s)
	if i < 0 {
		return 0, fmt.Errorf("%q is not one of %s", s, strings.Join(childlessNames[:], ", "))
	}
	return Childless(i), nil
}

var revocationNames = [...]string{"known", "off", "strict"}

// String names the level as documents do.
func (r Revocation) String() string {
	if int(r) < len(revocationNames) {
		return revocationNames[r]
	}
	return fmt.Sprintf("revocation(%d)", uint8(r))
}

// ParseRevocation reads the name of a level.
func ParseRevocation(s string) (Revocation, error) {
	i := slices.Index(revocationNames[:], s)
	if i < 0 {
		return 0, fmt.Errorf("%q is not one of %s", s, strings.Join(revocationNames[:], ", "))
	}
	return Revocation(i), nil
}

var transcriptNames = [...]string{"prefer", "require", "never"}

// String names the setting as documents do.
func (t Transcript) String() string {
	if int(t) < len(transcriptNames) {
		return transcriptNames[t]
	}
	return fmt.Sprintf("transcript(%d)", uint8(t))
}

// ParseTranscript reads the name of a setting.
func ParseTranscript(s string) (Transcript, error) {
	i := slices.Index(transcriptNames[:], s)
	if i < 0 {
		return 0, fmt.Errorf("%q is not one of %s", s, strings.Join(transcriptNames[:], ", "))
	}
	return Transcript(i), nil
}

var mobilityNames = [...]string{"allow", "without-nat", "never"}

// String names the setting as documents do.
func (m Mobility) String() string {
	if int(m) < len(mobilityNames) {
		return mobilityNames[m]
	}
	return fmt.Sprintf("mobility(%d)", uint8(m))
}

// ParseMobility reads the name of a setting.
func ParseMobility(s string) (Mobility, error) {
	i := slices.Index(mobilityNames[:], s)
	if i < 0 {
		return 0, fmt.Errorf("%q is not one of %s", s, strings.Join(mobilityNames[:], ", "))
	}
	return Mobility(i), nil
}

// String prints the address as documents write it.
func (a Address) String() string {
	switch a.Kind {
	case AddressPrefix:
		if a.Prefix.IsSingleIP() {
			return a.Prefix.Addr().String()
		}
		return a.Prefix.String()
	case AddressRange:
		return a.From.String() + "-" + a.To.String()
	case AddressName:
		return NamePrefix + a.Name
	default:
		return a.Kind.String()
	}
}

// String names the action as documents do.
func (a Action) String() string {
	switch a {
	case ActionBlock:
		return "block"
	case ActionPermit:
		return "permit"
	case ActionNegotiate:
		return "negotiate"
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// String names the fallback mode as documents do.
func (m FallbackMode) String() string {
	switch m {
	case FallbackNone:
		return "none"
	case FallbackWait:
		return "wait"
	case FallbackDiscover:
		return "discover"
	}
	return fmt.Sprintf("fallback(%d)", uint8(m))
}

// String names the authentication method as documents do.
func (m AuthMethod) String() string {
	switch m {
	case AuthCertificate:
		return "certificate"
	case AuthPSK:
		return "psk"
	}
	return fmt.Sprintf("auth(%d)", uint8(m))
}

// String names the interface class as documents do.
func (i Interfaces) String() string {
	switch i {
	case InterfacesAll:
		return "all"
	case InterfacesLAN:
		return "lan"
	case InterfacesRemoteAccess:
		return "remote-access"
	}
	return fmt.Sprintf("interfaces(%d)", uint8(i))
}
