package judge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// Statement says what must be protected. It is written by hand, never derived from a policy.
type Statement struct {
	// Protect lists the flows that must never be in clear.
	Protect []Flow `json:"protect"`
	// Permit lists exceptions from Protect.
	Permit []Flow `json:"permit,omitempty"`
	// Markers are texts that every payload of a protected flow holds again and again, and nothing else does.
	Markers []string `json:"markers,omitempty"`
	// Canary is a text in payloads that go in clear: that it is found shows that a marker would be.
	Canary string `json:"canary,omitempty"`
	// Injectors are the Ethernet addresses of those who send forged packets: these are no leaks, unless they hold a marker.
	Injectors []string `json:"injectors,omitempty"`
}

// Flow is all traffic between two sets of networks, in both directions.
type Flow struct {
	Name string         `json:"name"`
	A    []netip.Prefix `json:"a"`
	B    []netip.Prefix `json:"b"`
	// Protocol is the number of the IP protocol; 0 is any.
	Protocol uint8 `json:"protocol,omitempty"`
	// Port is that of either side, for TCP and UDP; 0 is any.
	Port uint16 `json:"port,omitempty"`
}

// leastMarker bounds how short a marker may be: a shorter one is found in ciphertext by chance.
const leastMarker = 8

// ParseStatement reads a statement in JSON. It refuses one that nothing can violate.
func ParseStatement(b []byte) (Statement, error) {
	var s Statement
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("read the statement of what must be protected: %w", err)
	}
	return s, s.check()
}

func (s Statement) check() error {
	if len(s.Protect) == 0 {
		return errors.New("the statement protects no flow: nothing could be a leak")
	}
	for _, f := range slices.Concat(s.Protect, s.Permit) {
		if len(f.A) == 0 || len(f.B) == 0 {
			return fmt.Errorf("flow %q of the statement lacks networks: want some in a and in b", f.Name)
		}
		if f.Port != 0 && f.Protocol != protocolTCP && f.Protocol != protocolUDP {
			return fmt.Errorf("flow %q of the statement has a port, which TCP (6) and UDP (17) have, and protocol %d", f.Name, f.Protocol)
		}
	}
	for _, m := range append(slices.Clone(s.Markers), s.Canary) {
		if len(m) < leastMarker && m != "" {
			return fmt.Errorf("marker %q of the statement has %d octets, want at least %d", m, len(m), leastMarker)
		}
	}
	if slices.Contains(s.Markers, "") {
		return errors.New("a marker of the statement is empty")
	}
	for _, i := range s.Injectors {
		if _, err := net.ParseMAC(i); err != nil {
			return fmt.Errorf("injector %q of the statement: %w", i, err)
		}
	}
	return nil
}

// covers reports whether the flow has packets with these addresses.
func (f Flow) covers(src, dst netip.Addr) bool {
	in := func(list []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return in(f.A, src) && in(f.B, dst) || in(f.B, src) && in(f.A, dst)
}

// has reports whether a packet belongs to the flow. Ports that are not known are those of the flow.
func (f Flow) has(p *packet) bool {
	if !f.covers(p.src, p.dst) || f.Protocol != 0 && f.Protocol != p.protocol {
		return false
	}
	return f.Port == 0 || !p.portsKnown || f.Port == p.srcPort || f.Port == p.dstPort
}
