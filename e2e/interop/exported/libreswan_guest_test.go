package exported

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/guest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/guest/guesttest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/policies/foreign"
)

// TestLibreswanTalks has libreswan's pluto on the IPsec of a Linux kernel, in a guest, under the configuration that was
// exported for it, and a node of ours at the other end: whoever begins, the tunnel comes up, packets pass in both
// directions, and none of them in clear. Without the key it does not.
func TestLibreswanTalks(t *testing.T) {
	bridge, g := libreswanGuest(t)
	config, err := foreign.Libreswan(effective(t, partner, "Partner", true), machine)
	if err != nil {
		t.Fatal(err)
	}
	names := connections(config.Text)
	if len(names) != 1 {
		t.Fatalf("connections %v of\n%s\nwant one", names, config.Text)
	}
	for _, c := range []struct {
		name      string
		udp       bool
		initiator pair.Side
	}{{"raw/from node", false, pair.FromNode}, {"raw/from peer", false, pair.FromPeer}, {"in UDP/from node", true, pair.FromNode}} {
		t.Run(c.name, func(t *testing.T) {
			p := pair.WithGuest(t, "bwlg-", bridge, g)
			d := startGuestPluto(t, p, config.Text, pair.PSK)
			p.StartNode(pair.Policy{UDP: c.udp})
			capture := p.Capture()
			if c.initiator == pair.FromPeer {
				d.run("ipsec whack --name " + names[0] + " --initiate")
			}
			p.Talk(c.initiator)
			p.Talk(c.initiator.Other())
			p.Ping(56, 3000)
			if w := p.Protected(capture); (w.Encap != 0) != c.udp || (w.ESP != 0) == c.udp {
				t.Errorf("on the wire %+v, want ESP in UDP: %t", w, c.udp)
			}
			if n := len(p.Ours().Children); n != 1 {
				t.Errorf("the node has %d Child SAs, want 1", n)
			}
			if out := d.run("ipsec whack --trafficstatus"); !strings.Contains(out, names[0]) || !strings.Contains(out, "@node.bank.example") {
				t.Errorf("pluto does not count the packets of its connection:\n%s", out)
			}
			if out := p.InGuest("ip", "xfrm", "state"); strings.Count(out, "proto esp") != 2 || !strings.Contains(out, "mode tunnel") {
				t.Errorf("the guest's kernel has, want two SAs of tunnel mode:\n%s", out)
			}
		})
	}
	t.Run("wrong key", func(t *testing.T) {
		p := pair.WithGuest(t, "bwlg-", bridge, g)
		startGuestPluto(t, p, config.Text, []byte("a preshared key of somebody else"))
		p.StartNode(pair.Policy{})
		p.Silent(pair.FromNode)
		p.Fails(pair.PeerOuter, ike.ReasonAuthRefused, ike.ReasonAuthFailed)
	})
}

// libreswanGuest boots a guest with libreswan, ready for a Pair.
func libreswanGuest(t *testing.T) (*lab.Bridge, *guest.Guest) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	installed := guesttest.Root(ctx, t, root.Config{Suite: libreswan.Suite, Packages: append([]string{"iputils-ping"}, libreswan.Packages...)})
	bridge, g := guesttest.Start(ctx, t, "bwlgs-", guest.Config{Root: installed})
	if err := pair.SetUp(ctx, g); err != nil {
		t.Fatal(err)
	}
	return bridge, g
}

// guestPluto is libreswan's daemon in a guest.
type guestPluto struct {
	t *testing.T
	p *pair.Pair
}

// run runs a command of a shell in the guest, where programs of libreswan are in the path.
func (d guestPluto) run(command string) string {
	d.t.Helper()
	out, err := d.p.VM.RunContext(d.p.Ctx, "sh", "-c", "PATH=/usr/libexec/ipsec:$PATH; "+strings.ReplaceAll(command, "ipsec whack", "whack --ctlsocket /run/pluto/pluto.ctl"))
	if err != nil {
		d.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// startGuestPluto starts the daemon as its documentation has it: the configuration and the key in files of their own. It ends
// with the test.
func startGuestPluto(t *testing.T, p *pair.Pair, config, key []byte) guestPluto {
	t.Helper()
	d := guestPluto{t, p}
	secrets := fmt.Sprintf("@%s @%s : PSK \"%s\"\n", pair.PeerName, pair.NodeName, key)
	for path, content := range map[string][]byte{"/etc/ipsec.conf": append([]byte("config setup\n\n"), config...), "/etc/ipsec.secrets": []byte(secrets)} {
		if err := p.VM.WriteFile(p.Ctx, path, content); err != nil {
			t.Fatal(err)
		}
	}
	d.run("rm -rf /tmp/nss /run/pluto; mkdir -p /tmp/nss /run/pluto; certutil -N -d sql:/tmp/nss --empty-password")
	process, err := p.VM.Start(nil, "/usr/libexec/ipsec/pluto", "--config", "/etc/ipsec.conf", "--nofork", "--logfile", "/tmp/pluto.log",
		"--nssdir", "/tmp/nss", "--rundir", "/run/pluto", "--secretsfile", "/etc/ipsec.secrets")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if t.Failed() {
			log, err := p.VM.ReadFile(ctx, "/tmp/pluto.log")
			t.Logf("log of pluto (%v):\n%s", err, log)
		}
		if err := process.Kill(); err != nil {
			t.Logf("end pluto: %v", err)
		}
	})
	for _, name := range connections(config) {
		p.Until("pluto takes connection "+name, func() (bool, error) {
			select {
			case <-process.Done():
				return false, errors.New("pluto ended")
			default:
			}
			_, err := p.VM.RunContext(p.Ctx, "/usr/libexec/ipsec/addconn", "--config", "/etc/ipsec.conf", "--ctlsocket", "/run/pluto/pluto.ctl", name)
			return err == nil, nil
		})
	}
	return d
}
