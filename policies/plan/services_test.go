package plan

import (
	"fmt"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies"
)

// TestNameServersByTheirAddress: whoever permits port 53 of an address says where the DNS server is; another port, another
// protocol or a whole network says nothing.
func TestNameServersByTheirAddress(t *testing.T) {
	const doc = `---
apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: Everything
filters: [{source: me, destination: any}]
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Drop
action: block
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: Named
filters:
  - {source: me, destination: %s, protocol: udp, destinationPort: %s}
  - {source: me, destination: %s, protocol: tcp, destinationPort: %s}
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: Closed
rules:
  - {name: all, filterList: Everything, filterAction: Drop}
  - {name: dns, filterList: Named, filterAction: Permit}
`
	for _, tt := range []struct {
		to, port string
		lost     int
	}{
		{"dns-servers", "53", 0}, {"192.0.2.53", "53", 0}, {`"2001:db8::53"`, "53", 0},
		{"192.0.2.53", "54", 2}, {"192.0.2.0/24", "53", 2}, {"192.0.2.53", "any", 2}, {"192.0.2.53", "50-60", 2},
	} {
		snapshot := town(t, "ou=ws", "ws1 in ou=ws")
		before := docs(t, fmt.Sprintf(doc, tt.to, tt.port, tt.to, tt.port))
		after := docs(t, fmt.Sprintf(doc, tt.to, tt.port, tt.to, tt.port)+link("Closed", "ou=ws,dc=x", 1))
		p := compare(t, World{Documents: before, Directory: snapshot}, World{Documents: after, Directory: snapshot})
		if len(p.Services) != tt.lost {
			t.Errorf("with port %s of %s permitted, lost are %v, want %d", tt.port, tt.to, p.Services, tt.lost)
		}
		for _, s := range p.Services {
			if s.After != policies.OutcomeBlocked {
				t.Errorf("with port %s of %s permitted: %v", tt.port, tt.to, s)
			}
		}
	}
}
