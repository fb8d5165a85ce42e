package controllertest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/e2e/lab/daemon"
	"github.com/bailiwick-net/bailiwick/e2e/lab/etcd"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// A controller over three members of etcd that lose most of them says so and issues nothing, nodes keep their sessions and what
// they have, and it goes on by itself when most are back.
func TestFleetLosesMostOfEtcd(t *testing.T) {
	started, err := etcd.StartCluster(t.Context(), 3)
	cluster := daemon.ForTest(t, started, err)
	f := New(t, Bank)
	f.Config.Store = on(cluster.Members[0])
	f.Config.Store.Endpoints = cluster.Endpoints()
	var log journal
	f.Config.Log = hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: &log})
	said := func(what string) func() bool {
		return func() bool { return strings.Contains(log.String(), what) }
	}
	f.Start()
	f.Apply(BankLinks)
	n := f.Node("sql1")
	s := n.Connect(&nodev1.Hello{})
	a := s.WantAssignment(predefined.SecureServer)
	s.WantBundle(a)
	s.Acknowledge(a)
	token := f.Token("ws1")

	leader, err := cluster.Leader(f.Context())
	if err != nil {
		t.Fatal(err)
	}
	gone := []*etcd.Server{leader, cluster.Others(leader)[0]}
	for _, m := range gone {
		m.Kill()
	}
	// Callers hear of it before their own time is over, whatever it is.
	ctx, cancel := context.WithTimeout(f.Context(), 5*time.Second)
	defer cancel()
	var asking sync.WaitGroup
	for what, ask := range map[string]func() error{
		"a renewal": func() error { _, err := n.renew(ctx, n.Identity); return err },
		"a join":    func() error { _, err := f.Join(token).Try(ctx); return err },
	} {
		asking.Go(func() {
			if err := ask(); ctx.Err() != nil || !strings.Contains(status.Convert(err).Message(), "reading ") {
				t.Errorf("%s without most members gave %v, want what could not be read of the store", what, err)
			}
		})
	}
	asking.Wait()
	f.Eventually("the controller says that the store does not answer", said("the store does not answer"))
	if err := cluster.Restart(t.Context(), gone...); err != nil {
		t.Fatal(err)
	}
	f.Eventually("the controller says that the store answers", said("the store answers again"))
	// The session is the one from before, and the fleet goes on.
	f.WriteDirectory(move(Bank, "sql1", "SecureServers", "Workstations"))
	s.Acknowledge(s.WantAssignment(predefined.Client))
	if _, err := n.Renew(n.Identity); err != nil {
		t.Errorf("renewing afterwards: %v", err)
	}
	if _, err := f.Join(token).Try(f.Context()); err != nil {
		t.Errorf("joining afterwards with the same token: %v", err)
	}
}
