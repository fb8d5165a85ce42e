package spd

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/directory"
)

// IsFor reports whether the entry is for a peer that claims an identity, in the notation of RemoteID; "" is an identity
// that the notation does not know.
func (a Auth) IsFor(identity string) bool {
	switch {
	case a.RemoteID == "":
		return true
	case identity == "":
		return false
	case strings.HasPrefix(identity, "fqdn:"): // names are compared without regard to case (RFC 4945 3.1.3)
		return len(a.RemoteID) == len(identity) && strings.EqualFold(a.RemoteID, identity)
	case a.RemoteID == identity:
		return true
	}
	want, isAddress := strings.CutPrefix(a.RemoteID, "ip:")
	claimed, claimsAddress := strings.CutPrefix(identity, "ip:")
	if !isAddress || !claimsAddress {
		return false
	}
	w, err := netip.ParseAddr(want) // of several spellings
	c, bad := netip.ParseAddr(claimed)
	return err == nil && bad == nil && w.Unmap() == c
}

// WantsPPK reports whether the entry accepts no peer without its postquantum preshared key.
func (a Auth) WantsPPK() bool { return a.PPK != "" && !a.PPKOptional }

// AcceptsIssuer reports whether a certificate may come from a chain with these CAs, by subject DN (RFC 4514).
func (a Auth) AcceptsIssuer(authorities []string) bool {
	if a.CA == "" {
		return true
	}
	return slices.ContainsFunc(authorities, a.NamesCA)
}

// NamesCA reports whether a subject DN is that of the CA of the entry. They are compared as DNs: escapes, case and
// the spelling of attribute types do not matter, and letters are those of Unicode.
func (a Auth) NamesCA(subject string) bool {
	if strings.EqualFold(subject, a.CA) {
		return true
	}
	want, err := directory.ParseDN(a.CA)
	if err != nil || want.IsZero() {
		return false
	}
	got, err := directory.ParseDN(subject)
	return err == nil && got.Equal(want)
}

// AdmitsPeer reports whether a peer that is a member of some groups is one of those wanted; none wanted is everybody.
func AdmitsPeer(wanted, groups []string) bool {
	if len(wanted) == 0 {
		return true
	}
	for _, w := range wanted {
		for _, g := range groups {
			if w == g {
				return true
			}
		}
	}
	return false
}

// ExcludedCAs lists the entries whose CA, or for an entry without one every CA, is kept out of certificate requests.
func (s Set) ExcludedCAs() []Auth {
	if s.policy == nil {
		return nil
	}
	var out []Auth
	for _, r := range s.policy.Rules {
		out = append(out, r.Auth...)
	}
	out = append(out, s.policy.DefaultResponse.Auth...)
	return slices.DeleteFunc(out, func(a Auth) bool { return !a.ExcludeCAName })
}
