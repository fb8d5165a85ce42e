package strongswan

import (
	"fmt"
	"strings"

	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
)

const policyName = "Partner"

// policy is the node's policy, written as an administrator would.
type policy struct {
	ike, esp     string // offers, separated by spaces
	ikeLifetime  string
	authenticate string // one entry of authentication in flow form
	pfs          bool
	remote       string // network behind the peer
	local        string // network behind the node
	tunnel       string // address of the peer
	exchange     string // further fields of keyExchange, each on an indented line of its own
	key          []byte // preshared key
	args         []string
}

const (
	byPSK         = `{method: psk, secretRef: ` + pskName + `, localID: "fqdn:` + nodeName + `", remoteID: "fqdn:` + peerName + `"}`
	byCertificate = `{method: certificate, remoteID: "fqdn:` + peerName + `"}`
)

func (p policy) document() []byte {
	or := func(s, otherwise string) string {
		if s == "" {
			return otherwise
		}
		return s
	}
	list := func(offers string) string {
		return `["` + strings.Join(strings.Fields(offers), `", "`) + `"]`
	}
	return fmt.Appendf(nil, `apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: Partner network
filters:
  - {source: "%s", destination: "%s"}
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Protect
action: negotiate
offers: %s
pfs: %t
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: %s
rules:
  - name: Partner
    filterList: Partner network
    filterAction: Protect
    authentication: [%s]
    tunnel:
      remote: %s
keyExchange:
  offers: %s
  lifetime: %s
%s`, or(p.local, nodeNet.String()), or(p.remote, peerNet.String()), list(or(p.esp, "ESP[AES-GCM-256]")), p.pfs, policyName, or(p.authenticate, byPSK), or(p.tunnel, peerOuter.String()),
		list(or(p.ike, "AES-GCM-256-SHA384-ecp384")), or(p.ikeLifetime, "8h"), p.exchange)
}

// partner is strongSwan's side of the same: one connection with one child.
func partner(ike, esp string, change ...func(*charon.Config)) charon.Config {
	config := charon.Config{
		Secrets: []charon.Secret{{IDs: []string{nodeName, peerName}, Key: psk}},
		Connections: []charon.Connection{{
			Name: connName, Local: peerOuter, Remote: nodeOuter, Auth: charon.AuthPSK,
			LocalID: peerName, RemoteID: nodeName, Proposals: []string{ike}, Settings: map[string]string{},
			Children: []charon.Child{{Name: netName, LocalTS: peerNet, RemoteTS: nodeNet, Proposals: []string{esp}, Settings: map[string]string{}}},
		}},
		Options: map[string]string{},
	}
	for _, c := range change {
		c(&config)
	}
	return config
}
