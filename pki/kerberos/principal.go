package kerberos

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jcmturner/gokrb5/v8/iana/nametype"
	"github.com/jcmturner/gokrb5/v8/types"
)

// ServiceName is the first component of the principal of every controller. Machines get tickets for no other service, so
// that whoever took over a controller cannot make them prove themselves to, say, a file server.
const ServiceName = "bailiwick"

// Principal is an account of a realm.
type Principal struct {
	// Components are the parts of the name: "host" and "sql1.bank.example", or "SQL1$" alone.
	Components []string
	Realm      string
}

// maxPrincipal bounds the text of a principal, in octets.
const maxPrincipal = 1024

// ParsePrincipal reads COMPONENT/COMPONENT@REALM. The escapes of RFC 1964 2.1.1 are not accepted: no account of a machine
// needs them. Errors wrap ErrPrincipal.
func ParsePrincipal(text string) (Principal, error) {
	name, realm, ok := strings.Cut(text, "@")
	p := Principal{Components: strings.Split(name, "/"), Realm: realm}
	if !ok || !p.sound() {
		return Principal{}, fmt.Errorf("%q, wanted NAME@REALM or SERVICE/HOST@REALM: %w", text, ErrPrincipal)
	}
	return p, nil
}

// sound says that the principal has one way of being written: no part is empty or holds what separates parts.
func (p Principal) sound() bool {
	bad := func(s string) bool {
		return s == "" || strings.ContainsAny(s, "@/\\") || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
	}
	return len(p.Components) > 0 && len(p.String()) <= maxPrincipal && !slices.ContainsFunc(p.Components, bad) && !bad(p.Realm)
}

// String writes the principal as ParsePrincipal reads it.
func (p Principal) String() string { return strings.Join(p.Components, "/") + "@" + p.Realm }

// Equal compares octet by octet: realms and names are case sensitive (RFC 4120 6.1).
func (p Principal) Equal(other Principal) bool {
	return p.Realm == other.Realm && slices.Equal(p.Components, other.Components)
}

func (p Principal) name() types.PrincipalName {
	return types.PrincipalName{NameType: nametype.KRB_NT_PRINCIPAL, NameString: slices.Clone(p.Components)}
}

// principalOf takes a principal from a message.
func principalOf(name types.PrincipalName, realm string) (Principal, error) {
	p := Principal{Components: name.NameString, Realm: realm}
	if !p.sound() {
		return Principal{}, fmt.Errorf("a name of %d parts in a realm of %d octets: %w", len(name.NameString), len(realm), ErrPrincipal)
	}
	return p, nil
}
