package scenarios

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// firewall is another program that has rules on the machine, as its users have it.
type firewall struct {
	name string
	// start lets everything pass and more: it masquerades, and marks whatever it sees.
	start []string
	// standing is in what show prints while its rules are in force.
	show, standing string
	// reload makes its rules anew, stop removes them.
	reload, stop []string
	// drop refuses TCP to the port in the format, allow takes that back.
	drop, allow string
}

// iptables are the commands of one of its two kinds, with rules as Docker and administrators make them.
func iptables(kind string) firewall {
	run := func(rule string) string { return "iptables-" + kind + " -w " + rule }
	return firewall{
		name: "iptables-" + kind,
		start: []string{
			run("-t filter -I INPUT -j ACCEPT"), run("-t filter -I OUTPUT -j ACCEPT"), run("-t raw -I OUTPUT -j ACCEPT"),
			run("-t filter -I INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
			run("-t nat -N DOCKER"), run("-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"),
			run("-t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER"),
			run("-t nat -A POSTROUTING -s 172.17.0.0/16 -o eth0 -j MASQUERADE"), run("-t nat -A POSTROUTING -o eth0 -j MASQUERADE"),
			run("-t mangle -A PREROUTING -j MARK --set-mark 0x1"), run("-t mangle -A INPUT -j MARK --set-mark 0x2"),
			run("-t mangle -A OUTPUT -j MARK --set-mark 0x3"), run("-t mangle -A POSTROUTING -j MARK --set-mark 0x4"),
		},
		show: run("-t mangle -S"), standing: "--set-xmark 0x4/0xffffffff",
		reload: []string{"sh -c iptables-" + kind + "-save|iptables-" + kind + "-restore"},
		stop:   []string{run("-t filter -F"), run("-t raw -F"), run("-t nat -F"), run("-t nat -X"), run("-t mangle -F")},
		drop:   run("-I OUTPUT -p tcp --dport %d -j DROP"), allow: run("-D OUTPUT -p tcp --dport %d -j DROP"),
	}
}

// nft is an administrator with a file of rules and the service that loads it.
func (a *fellows) nft() firewall {
	a.t.Helper()
	path := filepath.Join(a.dirs[0], "nftables.conf")
	const rules = `flush ruleset
table inet admin {
	chain early { type filter hook output priority raw; policy accept; accept; }
	chain input { type filter hook input priority filter; policy accept; ct state established,related accept; accept; }
	chain marks { type route hook output priority mangle + 5; policy accept; meta mark set 0x7; }
	chain nat { type nat hook postrouting priority srcnat; policy accept; oifname "eth0" masquerade; }
}
`
	if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return firewall{
		name: "nft", start: []string{"nft -f " + path}, show: "nft list tables", standing: "table inet admin",
		reload: []string{"nft -f " + path}, stop: []string{"nft flush ruleset"},
		drop: "nft insert rule inet admin early tcp dport %d drop", allow: "nft -f " + path + " # %d",
	}
}

// fellows are two nodes that protect TCP between them, and a port that the policy says nothing about.
type fellows struct {
	*analysed
}

func (a *fellows) sh(command string) (string, error) {
	words := strings.Fields(command)
	if words[0] == "sh" {
		words = []string{"sh", "-c", strings.Join(words[2:], " ")}
	}
	if i := slices.Index(words, "#"); i >= 0 {
		words = words[:i]
	}
	return a.hosts[0].RunContext(a.ctx, words...)
}

func (a *fellows) must(commands ...string) {
	a.t.Helper()
	for _, c := range commands {
		if _, err := a.sh(c); err != nil {
			a.t.Fatal(err)
		}
	}
}

// talks reports whether TCP from a host reaches the other one and comes back.
func (a *fellows) talks(from int, timeout time.Duration) error {
	return a.hosts[from].Do(func() error {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(a.addresses[1-from], analysedPort).String(), timeout)
		if err != nil {
			return err
		}
		defer conn.Close()
		return lab.RoundTrip(conn, []byte("only the two of them know"), time.Now().Add(timeout))
	})
}

func (a *fellows) wantTalk(when string) {
	a.t.Helper()
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if err = a.talks(0, 2*time.Second); err == nil {
			return
		}
	}
	a.t.Errorf("the nodes do not talk %s: %v", when, err)
}

// ours is what the kernel has of the node's table, without what changes by itself.
func (a *fellows) ours() string {
	a.t.Helper()
	out, err := a.sh("nft -j list chains")
	if err != nil {
		a.t.Fatal(err)
	}
	var list struct {
		Objects []struct {
			Chain *struct{ Table, Name string }
		} `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		a.t.Fatal(err)
	}
	var chains []string
	for _, o := range list.Objects {
		if o.Chain != nil && o.Chain.Table == "bailiwick" {
			chains = append(chains, o.Chain.Name)
		}
	}
	return strings.Join(chains, " ")
}

// TestOtherFirewalls has the real programs set rules beside the node's, reload and remove them, while the nodes talk: what
// the others accept is not opened, what they drop stays dropped, neither takes the other's rules away, and whatever they
// do to marks and addresses no TCP packet is in clear on the wire.
func TestOtherFirewalls(t *testing.T) {
	for _, c := range []struct {
		name string
		open func(*fellows) firewall
	}{
		{"nft", (*fellows).nft},
		{"iptables-nft", func(*fellows) firewall { return iptables("nft") }},
		{"iptables-legacy", func(*fellows) firewall { return iptables("legacy") }},
		{"firewalld", (*fellows).firewalld},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &fellows{connectAnalysed(t, [2]netip.Addr{netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("10.88.0.2")})}
			f := c.open(a)
			ca := catest.New(t)
			for i := range a.hosts {
				a.start(i, ca, fmt.Sprintf(analysedPolicy, a.addresses[1-i], "ESP[AES-GCM-256]", "AES-GCM-128-SHA256-x25519"), "always")
			}
			a.awaitPolicies()
			a.beside(f)
		})
	}
}

func (a *fellows) beside(f firewall) {
	t := a.t
	for _, h := range a.hosts {
		if err := h.ServeEcho(a.ctx, analysedPort); err != nil {
			t.Fatal(err)
		}
	}
	capture, err := a.hosts[0].Capture("eth0")
	if err != nil {
		t.Fatal(err)
	}
	a.wantTalk("before there is another firewall")
	chains := a.ours()
	standing := func(want bool, when string) {
		t.Helper()
		if out, err := a.sh(f.show); err != nil || strings.Contains(out, f.standing) != want {
			t.Errorf("rules of %s in force %s: want %v\n%s%v", f.name, when, want, out, err)
		}
		if got := a.ours(); got != chains {
			t.Errorf("chains of the node %s:\n%s\nwant\n%s", when, got, chains)
		}
	}
	a.must(f.start...)
	standing(true, "after its start")
	a.wantTalk("beside " + f.name)

	a.must(fmt.Sprintf(f.drop, analysedPort))
	if err := a.talks(0, 500*time.Millisecond); err == nil {
		t.Errorf("the nodes talk though %s drops it", f.name)
	}
	a.must(fmt.Sprintf(f.allow, analysedPort))
	a.wantTalk("after " + f.name + " allows it again")

	for range 3 {
		a.must(f.reload...)
		standing(true, "after its reload")
		a.wantTalk("after " + f.name + " was reloaded")
	}

	// A daemon that is dead is no occasion for the others, and one that comes back takes nothing of them away.
	if err := syscall.Kill(a.processes[0].Pids()[1], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	a.must(f.reload...)
	a.awaitPolicies()
	chains = a.ours()
	standing(true, "after the node was started again")
	a.wantTalk("after the node was started again")

	// The other one forgets its policy and speaks in clear.
	if err := a.processes[1].Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.hosts[1].Run("nft", "flush", "ruleset"); err != nil {
		t.Fatal(err)
	}
	if err := a.talks(1, 300*time.Millisecond); err == nil {
		t.Errorf("a connection in clear is accepted beside %s, which accepts everything", f.name)
	}
	a.must(f.stop...)
	standing(false, "after its end")
	if err := a.talks(1, 300*time.Millisecond); err == nil {
		t.Errorf("a connection in clear is accepted after the end of %s", f.name)
	}
	a.launch(1, "always")
	a.awaitPolicies()
	a.wantTalk("without " + f.name)

	frames, err := capture.Stop()
	if err != nil {
		t.Fatal(err)
	}
	clear, refused, protected := 0, 0, 0
	for _, frame := range frames {
		p := gopacket.NewPacket(frame.Data, layers.LayerTypeEthernet, gopacket.NoCopy)
		if p.Layer(layers.LayerTypeTCP) != nil {
			if frame.Outgoing {
				clear++
			} else {
				refused++
			}
		} else if udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); ok && udp.DstPort == 4500 {
			protected++
		}
	}
	if clear > 0 || protected == 0 || refused == 0 {
		t.Errorf("%d TCP packets left in clear, %d came in clear, and %d were of UDP 4500; want none, some and many", clear, refused, protected)
	}
	t.Logf("beside %s: %d packets of UDP 4500, %d of TCP came in clear, %d left", f.name, protected, refused, clear)
}

// firewalld starts the real one, with a bus and files of its own.
func (a *fellows) firewalld() firewall {
	a.t.Helper()
	dir := a.dirs[0]
	bus, zones := filepath.Join(dir, "bus"), filepath.Join(dir, "firewalld")
	for name, content := range map[string]string{
		filepath.Join(dir, "bus.conf"): `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=` + bus + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/><allow send_requested_reply="true"/><allow receive_type="method_call"/><allow receive_type="signal"/><allow receive_requested_reply="true"/></policy></busconfig>`,
		filepath.Join(zones, "firewalld.conf"): "DefaultZone=trusted\nFirewallBackend=nftables\nFlushAllOnReload=yes\nCleanupOnExit=yes\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			a.t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	environment := append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS=unix:path="+bus)
	start := func(command ...string) *lab.Process {
		a.t.Helper()
		cmd := a.hosts[0].Command(command...)
		cmd.Env = environment
		p, err := a.hosts[0].Start(cmd)
		if err != nil {
			a.t.Fatal(err)
		}
		return p
	}
	start("dbus-daemon", "--nofork", "--nopidfile", "--config-file", filepath.Join(dir, "bus.conf"))
	a.until("the bus is there", func() bool { _, err := os.Stat(bus); return err == nil })
	start("firewalld", "--nofork", "--nopid", "--system-config", zones, "--log-file", filepath.Join(dir, "log"))
	cmd := "env DBUS_SYSTEM_BUS_ADDRESS=unix:path=" + bus + " firewall-cmd --quiet "
	a.until("firewalld runs", func() bool { _, err := a.sh(cmd + "--state"); return err == nil })
	const direct = "--direct %s-rule ipv4 filter OUTPUT 0 -p tcp --dport %%d -j DROP"
	return firewall{
		name: "firewalld", start: []string{cmd + "--permanent --zone=trusted --add-masquerade", cmd + "--reload"},
		show: "nft list tables", standing: "table inet firewalld",
		reload: []string{cmd + "--reload", cmd + "--complete-reload"},
		stop:   []string{"nft flush ruleset"},
		drop:   cmd + fmt.Sprintf(direct, "--add"), allow: cmd + fmt.Sprintf(direct, "--remove"),
	}
}
