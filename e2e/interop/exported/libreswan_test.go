package exported

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
	"github.com/bailiwick-net/bailiwick/policies/foreign"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
)

// libreswan is the one of Debian 12, apart from the machine's own packages: it conflicts with strongSwan.
var libreswan = root.Config{Suite: "bookworm", Packages: []string{"libreswan", "iproute2"}}

// pluto is a running daemon of libreswan.
type pluto struct {
	t    *testing.T
	ctx  context.Context
	host *lab.Host
	root *root.Root
	dir  string
}

// run runs one of libreswan's programs and returns what it prints.
func (p pluto) run(program string, args ...string) (string, error) {
	command := append([]string{"/usr/libexec/ipsec/" + program}, args...)
	out, err := p.host.RunContext(p.ctx, p.root.Command([]string{p.dir}, command...)...)
	return out, err
}

// startPluto starts the daemon with a configuration file of its own, which it loads at once.
func startPluto(t *testing.T, config []byte) pluto {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	r, err := root.Open(ctx, libreswan)
	if errors.Is(err, root.ErrUnreachable) {
		t.Skipf("the packages of libreswan are needed, which are not installed beside what else the tests need, and no mirror gives them: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	l := labtest.New(t, "bwls-")
	host, err := l.Host("peer")
	if err == nil {
		err = host.AddAddress("lo", netip.PrefixFrom(machine.Facts.Addresses[0], 32))
	}
	if err != nil {
		t.Fatal(err)
	}
	p := pluto{t: t, ctx: ctx, host: host, root: r, dir: t.TempDir()}
	if err := os.WriteFile(p.path("ipsec.conf"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.path("nss"), 0o700); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(p.path("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	// The directories of sockets and keys are those of this test alone.
	if err := os.WriteFile(p.path("noise"), bytes.Repeat([]byte("noise"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("certutil -N -d sql:%[1]s/nss --empty-password; "+
		"certutil -S -x -d sql:%[1]s/nss -n %[2]s -s CN=%[2]s -t CT,C,C -k ec -q nistp256 -z %[1]s/noise; exec /usr/libexec/ipsec/pluto --config %[1]s/ipsec.conf "+
		"--nofork --stderrlog --nssdir %[1]s/nss --rundir %[1]s --secretsfile %[1]s/secrets", p.dir, machine.Name)
	cmd := host.Command(r.Command([]string{p.dir}, "sh", "-c", script)...)
	cmd.Stdout, cmd.Stderr = log, log
	process, err := host.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := p.run("whack", "--ctlsocket", p.path("pluto.ctl"), "--status")
		if err == nil && strings.Contains(out, "Total IPsec connections") {
			return p
		}
		select {
		case <-process.Done():
			t.Fatalf("pluto ended:\n%s", p.log())
		case <-ctx.Done():
			t.Fatalf("pluto does not answer: %v\n%s\n%s", err, out, p.log())
		case <-tick.C:
		}
	}
}

func (p pluto) path(name string) string { return filepath.Join(p.dir, name) }

func (p pluto) log() string {
	text, err := os.ReadFile(p.path("log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// connections are the names of those in a configuration.
func connections(config []byte) []string {
	var names []string
	for line := range strings.Lines(string(config)) {
		if name, ok := strings.CutPrefix(line, "conn "); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}

// TestLibreswan lets the real parser and daemon take every connection of what is exported, and wants selectors, algorithms
// and order as pluto understood them.
func TestLibreswan(t *testing.T) {
	secure, err := predefined.Documents().Effective("Secure Server (Require Security)")
	if err != nil {
		t.Fatal(err)
	}
	tunnel, err := foreign.Libreswan(effective(t, partner, "Partner", true), machine)
	if err != nil {
		t.Fatal(err)
	}
	isolated, err := foreign.Libreswan(secure, machine)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		config foreign.Config
		want   []string
	}{
		"tunnel": {tunnel, []string{
			`"partner-1": 10.2.0.0/24===10.9.0.2[@peer.bank.example]...10.9.0.1[@node.bank.example]===10.1.0.0/24`,
			`policy: IKEv2+PSK+ENCRYPT+TUNNEL`, `failureDROP`, `sa_prio:1001`,
			`IKE algorithms: AES_GCM_16_256-HMAC_SHA2_384-DH20, AES_CBC_256-HMAC_SHA2_256-DH19`, `ESP algorithms: AES_GCM_16_256-NONE`,
			`ipsec_life: 3600s`,
		}},
		"secure server": {isolated, []string{
			`"all-icmp-traffic-1": 10.9.0.2/32:ICMP/0-65535===10.9.0.2...%any===0.0.0.0/0:ICMP/0-65535`, `AUTH_NEVER+PASS`, `"all-ip-traffic-1"`, `sa_prio:1005`, `"default-response": 10.9.0.2[@peer.bank.example]...%any`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := startPluto(t, test.config.Text)
			if out, err := p.run("addconn", "--checkconfig", "--config", p.path("ipsec.conf")); err != nil {
				t.Errorf("the parser refuses it: %v\n%s", err, out)
			}
			for _, name := range connections(test.config.Text) {
				if out, err := p.run("addconn", "--config", p.path("ipsec.conf"), "--ctlsocket", p.path("pluto.ctl"), name); err != nil {
					t.Errorf("connection %s is not taken: %v\n%s", name, err, out)
				}
			}
			status, err := p.run("whack", "--ctlsocket", p.path("pluto.ctl"), "--status")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range connections(test.config.Text) {
				if !strings.Contains(status, `"`+name+`"`) {
					t.Errorf("pluto does not have connection %s", name)
				}
			}
			for _, want := range test.want {
				if !strings.Contains(status, want) {
					t.Errorf("pluto does not say %q", want)
				}
			}
			if t.Failed() {
				t.Logf("status:\n%s\nlog:\n%s", status, p.log())
			}
		})
	}
}
