package scenarios

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// attacked is a node whose peer speaks in clear, while both try to reach each other all the time.
type attacked struct {
	*analysed
	tried, reached atomic.Int64 // connections, from either side
}

func openAttacked(t *testing.T) (*attacked, *catest.CA) {
	t.Helper()
	a := &attacked{analysed: connectAnalysed(t, [2]netip.Addr{netip.MustParseAddr("10.87.0.1"), netip.MustParseAddr("10.87.0.2")})}
	for _, h := range a.hosts {
		if err := h.ServeEcho(a.ctx, analysedPort); err != nil {
			t.Fatal(err)
		}
	}
	return a, catest.New(t)
}

// policy lets the node on a host protect TCP to the other one.
func (a *attacked) policy(i int) string {
	return fmt.Sprintf(analysedPolicy, a.addresses[1-i], "ESP[AES-GCM-256]", "AES-GCM-128-SHA256-x25519")
}

// up waits until the daemon of the left host works.
func (a *attacked) up() {
	a.t.Helper()
	a.until("the left node enforces its policy", func() bool {
		s, err := a.clients[0].Status(a.ctx)
		return err == nil && s.Policy == "Analysed"
	})
}

// knock has each host connect to the other one again and again, until stopped.
func (a *attacked) knock() (stop func()) {
	ctx, cancel := context.WithCancel(a.ctx)
	var running sync.WaitGroup
	for i := range a.hosts {
		running.Go(func() {
			for ctx.Err() == nil {
				if a.reaches(i) {
					a.reached.Add(1)
				}
				a.tried.Add(1)
			}
		})
	}
	return func() { cancel(); running.Wait() }
}

// reaches reports whether a host gets a connection to the other one.
func (a *attacked) reaches(i int) bool {
	reached := false
	err := a.hosts[i].Do(func() error {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(a.addresses[1-i], analysedPort).String(), 20*time.Millisecond)
		if err == nil {
			reached = true
			return conn.Close()
		}
		return nil
	})
	if err != nil {
		a.t.Errorf("connect from host %s: %v", a.hosts[i].Name, err)
	}
	return reached
}

// flush is what other programs do to the rules of the machine.
func (a *attacked) flush() {
	a.t.Helper()
	if _, err := a.hosts[0].Run("nft", "flush", "ruleset"); err != nil {
		a.t.Fatal(err)
	}
	_, _ = a.hosts[0].Run("nft", "delete", "table", "inet", "bailiwick") // is to be refused
}

// wantSilence judges what the left host sent: no TCP, which its policy wants protected from everybody.
func (a *attacked) wantSilence(capture *lab.Capture) {
	a.t.Helper()
	frames, err := capture.Stop()
	if err != nil {
		a.t.Fatal(err)
	}
	came, sent := 0, 0
	for _, f := range frames {
		p := gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.NoCopy)
		switch {
		case p.Layer(layers.LayerTypeTCP) == nil:
		case f.Outgoing:
			sent++
		default:
			came++
		}
	}
	if sent > 0 || a.reached.Load() > 0 {
		a.t.Errorf("%d TCP packets left in clear and %d connections were made, want none", sent, a.reached.Load())
	}
	if came == 0 {
		a.t.Error("no TCP packet came: the test proves less than it says")
	}
	a.t.Logf("%d connections were tried, %d TCP packets came in clear", a.tried.Load(), came)
}

// TestRulesOutliveTheDaemon kills the daemon again and again, and while it is dead another program flushes all rules of the
// machine. What must be protected neither leaves nor is accepted in clear: the holder keeps the table. The daemon comes
// back by itself and negotiates.
func TestRulesOutliveTheDaemon(t *testing.T) {
	a, ca := openAttacked(t)
	a.start(0, ca, a.policy(0), "nat")
	a.up()
	capture, err := a.hosts[0].Capture("eth0")
	if err != nil {
		t.Fatal(err)
	}
	stop := a.knock()
	for range 4 {
		pids := a.processes[0].Pids()
		if len(pids) != 2 {
			t.Fatalf("the node has the processes %v, want a holder and a daemon", pids)
		}
		if err := syscall.Kill(pids[1], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		tried := a.tried.Load()
		for range 3 {
			a.flush()
		}
		a.until("connections were tried without rules to be expected", func() bool { return a.tried.Load() > tried+4 })
		a.until("the holder has started the daemon again", func() bool {
			now := a.processes[0].Pids()
			return len(now) == 2 && now[1] != pids[1]
		})
		a.flush()
		a.up()
	}
	stop()
	a.wantSilence(capture)

	a.start(1, ca, a.policy(1), "nat")
	a.until("the nodes talk protected", func() bool { return a.reaches(0) })

	// Without the holder nobody keeps others from the table: the test would have seen it.
	if err := a.processes[1].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := a.processes[0].Kill(); err != nil {
		t.Fatal(err)
	}
	for _, h := range a.hosts {
		if out, err := h.Run("nft", "list", "tables"); err != nil || !strings.Contains(out, "bailiwick") {
			t.Errorf("tables of host %s are %q, %v; want that of the dead node among them", h.Name, out, err)
		}
		if _, err := h.Run("nft", "flush", "ruleset"); err != nil {
			t.Fatal(err)
		}
	}
	a.until("a connection is made in clear without any rules", func() bool { return a.reaches(0) && a.reaches(1) })
}

// TestSystemdHoldsTheRules kills holder and daemon at once. What systemd has been given keeps the table, and the next holder
// takes it over. The test is what systemd is to the holder: sd_notify(3) and sd_listen_fds(3).
func TestSystemdHoldsTheRules(t *testing.T) {
	a, ca := openAttacked(t)
	address := filepath.Join(a.dirs[0], "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	a.prepare(0, ca, a.policy(0))
	cmd := a.hosts[0].Command(a.daemon(0, "nat")...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address)
	a.run(0, cmd)
	a.up()
	stored := received(t, notify)

	capture, err := a.hosts[0].Capture("eth0")
	if err != nil {
		t.Fatal(err)
	}
	stop := a.knock()
	if err := a.processes[0].Kill(); err != nil {
		t.Fatal(err)
	}
	tried := a.tried.Load()
	a.flush()
	a.until("connections were tried", func() bool { return a.tried.Load() > tried+8 })
	const asSystemd = `LISTEN_PID=$$ exec "$@"`
	cmd = a.hosts[0].Command(append([]string{"sh", "-c", asSystemd, "sh"}, a.daemon(0, "nat")...)...)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=bailiwick-nftables")
	cmd.ExtraFiles = []*os.File{stored}
	a.run(0, cmd)
	a.flush()
	a.up()
	if err := stored.Close(); err != nil { // from now on the next holder has it alone
		t.Fatal(err)
	}
	a.flush()
	tried = a.tried.Load()
	a.until("connections were tried", func() bool { return a.tried.Load() > tried+8 })
	stop()
	a.wantSilence(capture)
}

// received waits for a descriptor that is to be stored.
func received(t *testing.T, notify *net.UnixConn) *os.File {
	t.Helper()
	message, control := make([]byte, 256), make([]byte, 256)
	if err := notify.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, controls, _, _, err := notify.ReadMsgUnix(message, control)
	if err != nil {
		t.Fatalf("wait for the socket that systemd is to keep: %v", err)
	}
	const want = "FDSTORE=1\nFDNAME=bailiwick-nftables\nFDPOLL=0"
	if string(message[:n]) != want {
		t.Errorf("systemd is told %q, want %q", message[:n], want)
	}
	list, err := syscall.ParseSocketControlMessage(control[:controls])
	if err != nil || len(list) != 1 {
		t.Fatalf("systemd is given %d control messages, %v; want one", len(list), err)
	}
	descriptors, err := syscall.ParseUnixRights(&list[0])
	if err != nil || len(descriptors) != 1 {
		t.Fatalf("systemd is given the descriptors %v, %v; want one", descriptors, err)
	}
	syscall.CloseOnExec(descriptors[0])
	return os.NewFile(uintptr(descriptors[0]), "stored")
}
