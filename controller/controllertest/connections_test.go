package controllertest

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc/connectivity"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/bailiwick-net/bailiwick/controller"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// Strangers take all the room that they can get, and say nothing. The sessions of nodes go on, other nodes come in as soon as a
// stranger is gone, and who has no call to make is sent away.
func TestStrangersHoldTheListener(t *testing.T) {
	f := New(t, Bank)
	f.Config.Connections = controller.ConnectionConfig{Strangers: 8, IdleTime: time.Second}
	f.Start()
	node, other := f.Node("sql1"), f.Node("ws1")
	session := node.Connect(&nodev1.Hello{})
	session.WantAssignment(policies.NoneName)
	var strangers []net.Conn
	defer func() {
		for _, s := range strangers {
			s.Close()
		}
	}()
	f.Eventually("strangers are refused", func() bool {
		conn, err := (&net.Dialer{}).DialContext(f.Context(), "tcp", f.Address())
		if err != nil {
			t.Fatal(err)
		}
		strangers = append(strangers, conn)
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, err = conn.Read(make([]byte, 1))
		return !errors.Is(err, os.ErrDeadlineExceeded)
	})
	// The node that is connected has its session all along.
	f.Apply(BankLinks)
	session.WantAssignment(predefined.SecureServer)
	for _, s := range strangers {
		s.Close()
	}
	conn := other.Dial(other.Certificate)
	f.Eventually("another node comes in", func() bool {
		_, err := healthpb.NewHealthClient(conn).Check(f.Context(), &healthpb.HealthCheckRequest{})
		return err == nil
	})
	other.Connect(&nodev1.Hello{}).WantAssignment(predefined.Client)
	for state := conn.GetState(); state != connectivity.Idle; state = conn.GetState() {
		if !conn.WaitForStateChange(f.Context(), state) {
			t.Fatal("a connection without a call is not closed")
		}
	}
	// A session is a call, and stays.
	f.Eventually("both nodes are connected", func() bool {
		_, r := waiting(t, f)
		n := 0
		for _, x := range r.GetNodes() {
			if x.GetConnected() {
				n++
			}
		}
		return n == 2
	})
}
