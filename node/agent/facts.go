package agent

import (
	"fmt"
	"maps"
	"slices"

	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// maxFacts bounds the addresses of one kind in a report.
const maxFacts = 256

// describeFacts writes the facts that the policy in force was expanded with, so that the controller can answer for this
// machine what the node would do.
func describeFacts(f spd.Facts) *nodev1.Facts {
	out := &nodev1.Facts{
		Addresses: texts(f.Addresses), DnsServers: texts(f.DNSServers), DhcpServers: texts(f.DHCPServers),
		DefaultGateways: texts(f.DefaultGateways), Broadcasts: texts(f.Broadcasts), Controllers: texts(f.Controllers), RemoteAddresses: texts(f.RemoteAddresses),
	}
	for _, name := range slices.Sorted(maps.Keys(f.Names)) {
		out.Names = append(out.Names, &nodev1.ResolvedName{Name: name, Addresses: texts(f.Names[name])})
	}
	out.Names = out.Names[:min(len(out.Names), maxFacts)]
	return out
}

func texts[T fmt.Stringer](list []T) []string {
	var out []string
	for _, v := range list[:min(len(list), maxFacts)] {
		out = append(out, v.String())
	}
	return out
}
