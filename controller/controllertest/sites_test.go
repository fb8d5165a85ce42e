package controllertest

import (
	"strings"
	"testing"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// siteDocuments put the nodes of these tests, which connect over the loopback, at a site of their own.
const siteDocuments = `apiVersion: bailiwick.net/v1alpha1
kind: Site
name: Lab
subnets: [127.0.0.0/8]
---
apiVersion: bailiwick.net/v1alpha1
kind: Site
name: Rack
subnets: [192.0.2.0/24]
---
apiVersion: bailiwick.net/v1alpha1
kind: Link
policy: Server (Request Security)
container: cn=Lab,cn=Sites
order: 1
`

// TestSiteOfAMachine is a policy for a place: it counts from the first connection of a node on, survives a restart of the
// controller and the end of the session, and follows the subnets.
func TestSiteOfAMachine(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(siteDocuments)
	explain := func(machine string) *adminv1.ExplainMachineResponse {
		t.Helper()
		r, err := f.Machines().ExplainMachine(f.Context(), &adminv1.ExplainMachineRequest{Machine: machine})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := explain("ws1"); r.GetSite() != "" || !strings.Contains(r.GetSiteReason(), "no node of the machine ever connected") || r.GetMachine().GetPolicy() != "none" {
		t.Errorf("before the first connection: site %q because %q, policy %q", r.GetSite(), r.GetSiteReason(), r.GetMachine().GetPolicy())
	}
	node := f.Node("ws1")
	session := node.Connect(&nodev1.Hello{Version: "scripted"})
	// The very first assignment is that of the site: no other one came before it.
	first := session.WantAssignment("Server (Request Security)")
	if first.GetContainer() != "cn=Lab,cn=Sites" || first.GetRevision() != 2 {
		t.Errorf("assigned from %q at revision %d", first.GetContainer(), first.GetRevision())
	}
	session.Acknowledge(first)
	if r := explain("ws1"); r.GetSite() != "Lab" || !strings.Contains(r.GetSiteReason(), "127.0.0.1 of its node is in its subnet 127.0.0.0/8") || r.GetCandidates()[0].GetReason() != "won" {
		t.Errorf("connected: site %q because %q, candidates %v", r.GetSite(), r.GetSiteReason(), r.GetCandidates())
	}
	session.Close()
	f.Eventually("the node is gone", func() bool {
		r, err := f.Machines().ListNodes(f.Context(), &adminv1.ListNodesRequest{})
		return err == nil && r.GetNodes()[0].GetState() == adminv1.NodeState_NODE_STATE_OFFLINE
	})
	f.Restart()
	if r := explain("ws1"); r.GetSite() != "Lab" || r.GetMachine().GetPolicy() != "Server (Request Security)" {
		t.Errorf("after a restart: site %q because %q, policy %q", r.GetSite(), r.GetSiteReason(), r.GetMachine().GetPolicy())
	}

	// The domain wins over the site; without the subnet the machine is at no site.
	session = node.Connect(&nodev1.Hello{Version: "scripted", Revision: first.GetRevision(), Digest: first.GetDigest()})
	session.WantAssignment("Server (Request Security)")
	f.Apply(strings.SplitN(BankLinks, "---\n", 2)[0])
	session.WantAssignment("Client (Respond Only)")
	if r := explain("ws1"); len(r.GetCandidates()) != 2 || r.GetCandidates()[1].GetReason() != "overridden" {
		t.Errorf("candidates are %v", r.GetCandidates())
	}
	f.Apply(strings.Replace(siteDocuments, "127.0.0.0/8", "198.51.100.0/24", 1))
	if r := explain("ws1"); r.GetSite() != "" || !strings.Contains(r.GetSiteReason(), "no site has a subnet with the address 127.0.0.1") || len(r.GetCandidates()) != 1 {
		t.Errorf("without its subnet: site %q because %q, candidates %v", r.GetSite(), r.GetSiteReason(), r.GetCandidates())
	}
}
