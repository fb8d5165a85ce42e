package charon

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
)

var (
	outer = [2]netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")}
	inner = [2]netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("10.2.0.0/24")}
)

// TestTwoDaemonsTalk holds the launcher to what tests rely on, with strongSwan on both sides.
func TestTwoDaemonsTalk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	t.Run("debian-12", func(t *testing.T) {
		twoDaemonsTalk(ctx, t, Config{}, "aes256gcm16-prfsha384-ecp384", true)
	})
	t.Run("forky", func(t *testing.T) {
		newer, err := root.Open(ctx, root.StrongSwan)
		if errors.Is(err, root.ErrUnreachable) {
			t.Skipf("a newer strongSwan is needed: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		raw := map[string]string{"kernel-libipsec.raw_esp": "yes"}
		twoDaemonsTalk(ctx, t, Config{Root: newer, Plugins: raw}, "aes256gcm16-prfsha384-ecp384-ke1_mlkem768", false)
	})
}

// twoDaemonsTalk starts two daemons of a kind. Encapsulated says how its userspace ESP travels without a NAT.
func twoDaemonsTalk(ctx context.Context, t *testing.T, config Config, ike string, encapsulated bool) {
	t.Helper()
	l := labtest.New(t, "bwio-charon-")
	var ends [2]lab.End
	var daemons [2]*Daemon
	for i, name := range []string{"a", "b"} {
		host, err := l.Host(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := host.AddAddress("lo", netip.PrefixFrom(inner[i].Addr().Next(), 32)); err != nil {
			t.Fatal(err)
		}
		ends[i] = lab.End{Host: host, Device: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(outer[i], 24)}}
	}
	if err := l.Link(ends[0], ends[1]); err != nil {
		t.Fatal(err)
	}
	ids := [2]string{"a.example", "b.example"}
	for i := range daemons {
		dir, err := os.MkdirTemp("", "charon")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		config.Host, config.Dir = ends[i].Host, dir
		config.Secrets = []Secret{{IDs: ids[:], Key: []byte("between two daemons")}}
		config.Connections = []Connection{{
			Name: "peer", Local: outer[i], Remote: outer[1-i], Auth: AuthPSK, LocalID: ids[i], RemoteID: ids[1-i],
			Proposals: []string{ike},
			Children:  []Child{{Name: "net", LocalTS: inner[i], RemoteTS: inner[1-i], Proposals: []string{"aes128gcm16"}}},
		}}
		if daemons[i], err = Start(ctx, config); err != nil {
			t.Fatal(err)
		}
	}
	a, b := daemons[0], daemons[1]
	up := func() SA {
		t.Helper()
		if err := a.Initiate(ctx, "net"); err != nil {
			t.Fatal(err)
		}
		sas, err := b.SAs(ctx)
		if err != nil || len(sas) != 1 || len(sas[0].Children) != 1 {
			t.Fatalf("responder has %v, %v; want one IKE SA with one child", sas, err)
		}
		return sas[0]
	}
	sa := up()
	if sa.State != "ESTABLISHED" || sa.Initiator || sa.RemoteID != ids[0] || sa.Group != "ECP_384" || sa.Encryption != "AES_GCM_16" || sa.KeySize != "256" {
		t.Errorf("IKE SA of the responder is %+v", sa)
	}
	child := sa.Children[0]
	if child.State != "INSTALLED" || child.Mode != "TUNNEL" || child.Encapsulated != encapsulated || child.KeySize != "128" || child.LocalTS[0] != inner[1].String() {
		t.Errorf("child of the responder is %+v", child)
	}
	if _, err := ends[0].Host.RunContext(ctx, "ping", "-c1", "-W5", "-I", inner[0].Addr().Next().String(), inner[1].Addr().Next().String()); err != nil {
		t.Errorf("no packet through the tunnel: %v", err)
	}

	if err := a.TerminateIKE(ctx, "peer"); err != nil {
		t.Error(err)
	}
	if sas, err := a.SAs(ctx); err != nil || len(sas) != 0 {
		t.Errorf("after terminate there are %v, %v", sas, err)
	}
	if err := a.Initiate(ctx, "nothing"); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("initiating a child that is not configured: %v", err)
	}

	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := b.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	up()
	if ok, err := b.Logged("CHILD_SA net{1} established"); err != nil || !ok {
		t.Errorf("the log does not tell of the child: %v, %v", ok, err)
	}
	if err := b.Stop(); err != nil {
		t.Logf("charon ended with %v", err)
	}
	if sas, err := a.SAs(ctx); err != nil || len(sas) != 0 {
		t.Errorf("after the peer said goodbye there are %v, %v", sas, err)
	}
}

func TestConfigurationThatDoesNotLoadIsAnError(t *testing.T) {
	l := labtest.New(t, "bwio-chbad-")
	host, err := l.Host("a")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "charon")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	config := Config{Host: host, Dir: dir, Connections: []Connection{{
		Name: "peer", Local: outer[0], Remote: outer[1], Auth: AuthPSK, Proposals: []string{"rot13"},
	}}}
	if _, err := Start(t.Context(), config); err == nil || !strings.Contains(err.Error(), "peer") {
		t.Errorf("an unknown algorithm gives %v, want an error that names the connection", err)
	}
	config.Dir = filepath.Join(dir, strings.Repeat("d", 100))
	if _, err := Start(t.Context(), config); err == nil {
		t.Error("a path too long for a socket is accepted")
	}
}

func TestSectionsOfVici(t *testing.T) {
	list := []byte{elementList, 1, 'l', elementItem, 0, 1, 'x', elementItem, 0, 0, elementListEnd}
	value := appendSettings(nil, []setting{{"key", "value"}})
	nested := append(append([]byte{elementSection, 1, 's'}, value...), elementSectionEnd)
	m, _, err := parseSection(append(append(append([]byte(nil), value...), list...), nested...), 0)
	if err != nil {
		t.Fatal(err)
	}
	if m.values["key"] != "value" || strings.Join(m.lists["l"], ",") != "x," || m.sections["s"].values["key"] != "value" {
		t.Errorf("parsed %+v", m)
	}
	for n := 1; n < len(nested); n++ {
		if _, _, err := parseSection(nested[:n], 0); !errors.Is(err, errVici) {
			t.Errorf("%d octets of %d: %v, want %v", n, len(nested), err, errVici)
		}
	}
	for _, bad := range [][]byte{{elementSectionEnd}, {99, 1, 'x'}, {elementList, 1, 'l', elementValue}} {
		if _, _, err := parseSection(bad, 0); !errors.Is(err, errVici) {
			t.Errorf("% x: %v, want %v", bad, err, errVici)
		}
	}
}
