package scenarios

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/tshark"
	"github.com/bailiwick-net/bailiwick/node/localapi"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

const tunnelPolicy = `apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: Between
filters:
  - source: %s
    destination: %s
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Protect
action: negotiate
offers: ["ESP[AES-GCM-256]"]
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: Analysed
rules:
  - name: Between
    filterList: Between
    filterAction: Protect
    authentication: [{method: certificate}]
    tunnel: {remote: %s}
keyExchange:
  offers: ["AES-GCM-128-SHA256-x25519"]
  lifetime: 8h
`

// TestConnectionOutlivesACrashAndAMove holds one TCP connection between the networks behind two nodes. The right node is
// killed and started anew: its token proves the loss to the left one (RFC 6290), which would notice only after minutes of
// silence otherwise, and the connection goes on through new SAs. Then the left node loses its address and gets another one:
// the IKE SA and its Child SA move there (RFC 4555), neither is made anew.
func TestConnectionOutlivesACrashAndAMove(t *testing.T) {
	outer := [2]netip.Addr{netip.MustParseAddr("10.86.0.1"), netip.MustParseAddr("10.86.0.2")}
	inner := [2]netip.Addr{netip.MustParseAddr("10.86.1.1"), netip.MustParseAddr("10.86.2.1")}
	elsewhere := netip.MustParseAddr("10.86.0.3")
	a := connectAnalysed(t, outer)
	run := func(host int, command ...string) {
		t.Helper()
		if _, err := a.hosts[host].RunContext(a.ctx, command...); err != nil {
			t.Fatal(err)
		}
	}
	network := func(i int) string { return netip.PrefixFrom(inner[i], 24).Masked().String() }
	toRight := []string{"ip", "route", "replace", network(1), "via", outer[1].String(), "src", inner[0].String()}
	ca := catest.New(t)
	for i, h := range a.hosts {
		if err := h.AddAddress("lo", netip.PrefixFrom(inner[i], 32)); err != nil {
			t.Fatal(err)
		}
		a.start(i, ca, fmt.Sprintf(tunnelPolicy, network(i), network(1-i), outer[1-i]), "nat")
	}
	run(0, toRight...)
	// The right host answers whatever address the left one has: its clear packets are of no use to anybody.
	run(1, "ip", "route", "add", network(0), "dev", "eth0", "src", inner[1].String())
	a.awaitPolicies()
	capture, err := a.hosts[0].Capture("eth0")
	if err != nil {
		t.Fatal(err)
	}

	if err := a.hosts[1].ServeEcho(a.ctx, analysedPort); err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	err = a.hosts[0].Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", netip.AddrPortFrom(inner[1], analysedPort).String(), 10*time.Second)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	payload := []byte("nobody between the two of them reads this")
	talk := func(when string) {
		t.Helper()
		if err := lab.RoundTrip(conn, payload, time.Now().Add(30*time.Second)); err != nil {
			t.Fatalf("the connection %s: %v", when, err)
		}
	}
	talk("at first")

	if err := a.processes[1].Kill(); err != nil {
		t.Fatal(err)
	}
	a.launch(1, "nat")
	a.awaitPolicies()
	talk("after the crash")
	history, _ := a.command(0, "ike", "trace", "right", "--history")
	if !strings.Contains(history, "peer-restarted") {
		t.Errorf("the left node has not noticed the restart by the token:\n%s", history)
	}

	var before localapi.Associations
	a.until("there is one IKE SA with one child", func() bool {
		before, err = a.clients[0].Associations(a.ctx)
		return err == nil && len(before.IKE) == 1 && len(before.Children) == 1
	})

	run(0, "sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1")
	run(0, "ip", "address", "add", elsewhere.String()+"/24", "dev", "eth0")
	run(0, "ip", "address", "del", outer[0].String()+"/24", "dev", "eth0")
	run(0, toRight...)
	a.until("both nodes have moved the IKE SA", func() bool {
		left, err := a.clients[0].Associations(a.ctx)
		right, rightErr := a.clients[1].Associations(a.ctx)
		return err == nil && rightErr == nil && len(left.IKE) == 1 && len(right.IKE) == 1 &&
			strings.HasPrefix(left.IKE[0].Local, elsewhere.String()+":") && strings.HasPrefix(right.IKE[0].Remote, elsewhere.String()+":")
	})
	talk("after the move")
	moved, err := a.clients[0].Associations(a.ctx)
	if err != nil || len(moved.IKE) != 1 || len(moved.Children) != 1 || moved.IKE[0].SPI != before.IKE[0].SPI || moved.Children[0].In != before.Children[0].In {
		t.Errorf("after the move there are %+v, %v; want the SAs of before, %+v", moved, err, before)
	}

	frames, err := capture.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if found := tshark.Holding(frames, payload); len(found) > 0 {
		t.Errorf("%d frames hold %q in clear", len(found), payload)
	}
	for _, f := range frames {
		const ipv4Source, ipv4Len = 14 + 12, 14 + 20
		for _, address := range inner {
			if len(f.Data) >= ipv4Len && f.Data[12] == 8 && f.Data[13] == 0 && bytes.Contains(f.Data[ipv4Source:ipv4Len], address.AsSlice()) {
				t.Fatalf("a frame shows the inner address %s in clear: % x", address, f.Data)
			}
		}
	}
}
