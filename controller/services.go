package controller

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/plan"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// services are what a plan tells about when machines lose it: the name service, this controller, and the directory.
func (v validated) services() []plan.Service {
	out := plan.DNS()
	for _, listen := range v.Listen {
		traffic, ok := tcpPort(listen)
		if !ok {
			continue
		}
		for _, name := range v.dnsNames {
			out = append(out, plan.Service{Name: "controller", Traffic: traffic, Host: name, Exempt: true})
		}
		for _, a := range v.addresses {
			out = append(out, plan.Service{Name: "controller", Traffic: traffic, Address: a, Exempt: true})
		}
	}
	for _, source := range v.directories.Sources {
		if source.LDAP == nil {
			continue
		}
		u, err := url.Parse(source.LDAP.URL)
		if err != nil || u.Hostname() == "" {
			continue
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"ldap": "389", "ldaps": "636"}[u.Scheme]
		}
		if traffic, ok := tcpPort(net.JoinHostPort(u.Hostname(), port)); ok {
			s := plan.Service{Name: "directory", Traffic: traffic, Host: u.Hostname()}
			if a, err := netip.ParseAddr(u.Hostname()); err == nil {
				s.Host, s.Address = "", a.Unmap()
			}
			out = append(out, s)
		}
	}
	return out
}

func tcpPort(address string) (policies.Traffic, bool) {
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return policies.Traffic{}, false
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 { // 0 is a port that the kernel chooses
		return policies.Traffic{}, false
	}
	return policies.Traffic{Protocol: spd.ProtocolTCP, Ports: spd.PortRange{From: uint16(port), To: uint16(port)}}, true
}
