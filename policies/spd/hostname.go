package spd

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// NamePrefix stands before a DNS name where documents have an address.
const NamePrefix = "dns:"

// MaxHostNames bounds how many DNS names the filters of one policy have.
const MaxHostNames = 256

// CheckHostName wants a complete DNS name (RFC 1123 2.1) as Address holds it: at least two labels of letters, digits and
// hyphens in lower case, 253 octets at most (RFC 1035 3.1), no dot at the end. What is an address is no name.
func CheckHostName(name string) error {
	labels := strings.Split(name, ".")
	if len(name) > 253 || len(labels) < 2 {
		return fmt.Errorf("%q is not a complete DNS name, as host.bank.example", name)
	}
	for _, l := range labels {
		odd := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' }
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.ContainsFunc(l, odd) {
			return fmt.Errorf("%q is not a DNS name: label %q is not of 1-63 letters, digits and hyphens (other scripts as xn--)", name, l)
		}
	}
	if top := labels[len(labels)-1]; top[0] >= '0' && top[0] <= '9' {
		return fmt.Errorf("%q is not a DNS name: no top-level domain begins with a digit", name)
	}
	return nil
}

// HostNames lists the DNS names of the filters, sorted.
func (p Policy) HostNames() []string {
	var out []string
	for _, r := range p.Rules {
		out = append(out, r.hostNames()...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// HostNames lists the DNS names of the policy that the Set was made from, sorted.
func (s Set) HostNames() []string {
	if s.policy == nil {
		return nil
	}
	return s.policy.HostNames()
}

// Assuming returns the facts in which DNS names of a policy that were never resolved are known to have no address, for
// those who only look at what a policy would do. A node that did so would let pass what is to be blocked or protected.
func (f Facts) Assuming(p Policy) Facts {
	names := maps.Clone(f.Names)
	for _, name := range p.HostNames() {
		if _, ok := names[name]; ok {
			continue
		}
		if names == nil {
			names = map[string][]netip.Addr{}
		}
		names[name] = nil
	}
	f.Names = names
	return f
}

func (r Rule) hostNames() []string {
	var out []string
	for _, f := range r.Filters {
		for _, a := range []Address{f.Source, f.Destination} {
			if a.Kind == AddressName {
				out = append(out, a.Name)
			}
		}
	}
	return out
}

// unresolved is an error about the first rule that blocks or negotiates with a name whose addresses were never known.
func (p Policy) unresolved(f Facts) error {
	for _, r := range p.Rules {
		if r.Action.Action == ActionPermit {
			continue
		}
		for _, name := range r.hostNames() {
			if _, ok := f.Names[name]; !ok {
				return fmt.Errorf("%w: rule %q is to %s what belongs to %s%s, which was never resolved", ErrUnresolved, r.ID, r.Action.Action, NamePrefix, name)
			}
		}
	}
	return nil
}
