package scenarios

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/tshark"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/localapi"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// analysed are two nodes with a policy from a file, certificates of one CA, and their key logs.
type analysed struct {
	t         *testing.T
	ctx       context.Context
	hosts     [2]*lab.Host
	processes [2]*lab.Process
	clients   [2]*localapi.Client
	dirs      [2]string
	addresses [2]netip.Addr
}

// analysedNames are the names in their certificates.
var analysedNames = [2]string{"left.bank.example", "right.bank.example"}

const analysedPort = 7008

func openAnalysed(t *testing.T, addresses [2]netip.Addr, ike, esp, encapsulation string) *analysed {
	t.Helper()
	a := connectAnalysed(t, addresses)
	ca := catest.New(t)
	for i := range a.hosts {
		a.start(i, ca, fmt.Sprintf(analysedPolicy, addresses[1-i], esp, ike), encapsulation)
	}
	a.awaitPolicies()
	return a
}

// connectAnalysed makes the hosts, on which nothing runs yet.
func connectAnalysed(t *testing.T, addresses [2]netip.Addr) *analysed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	a := &analysed{t: t, ctx: ctx, addresses: addresses}
	for i := range a.dirs {
		// The path of a unix socket is short. The directories go after the processes that write to them.
		dir, err := os.MkdirTemp("", "judge")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		a.dirs[i] = dir
	}
	l := labtest.New(t, "bwio-judge-")
	var ends [2]lab.End
	for i, name := range analysedNames {
		short, _, _ := strings.Cut(name, ".")
		host, err := l.Host(short)
		if err != nil {
			t.Fatal(err)
		}
		a.hosts[i] = host
		bits := 24
		if addresses[i].Is6() {
			bits = 64
		}
		ends[i] = lab.End{Host: a.hosts[i], Device: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(addresses[i], bits)}}
	}
	if err := l.Link(ends[0], ends[1]); err != nil {
		t.Fatal(err)
	}
	for _, h := range a.hosts {
		// Packets that a node sends in one go would be one frame, which no analyser takes apart.
		if _, err := h.Run("ip", "link", "set", "dev", "eth0", "gso_max_segs", "1"); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// analysedPolicy protects TCP to an address with an offer for ESP and one for IKE.
const analysedPolicy = `apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: Between
filters:
  - source: me
    destination: %s
    protocol: tcp
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Protect
action: negotiate
offers: ["%s"]
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: Analysed
rules:
  - name: Between
    filterList: Between
    filterAction: Protect
    authentication: [{method: certificate}]
keyExchange:
  offers: ["%s"]
  lifetime: 8h
`

func (a *analysed) awaitPolicies() {
	a.t.Helper()
	for i := range a.hosts {
		a.until("the node enforces its policy", func() bool {
			s, err := a.clients[i].Status(a.ctx)
			return err == nil && s.Policy == "Analysed"
		})
	}
}

func (a *analysed) start(i int, ca *catest.CA, policy, encapsulation string) {
	a.t.Helper()
	a.prepare(i, ca, policy)
	a.launch(i, encapsulation)
}

// prepare writes what the node of a host starts with.
func (a *analysed) prepare(i int, ca *catest.CA, policy string) {
	a.t.Helper()
	dir := a.dirs[i]
	a.t.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(dir, "log")); err == nil && a.t.Failed() {
			a.t.Logf("log of %s:\n%s", analysedNames[i], log)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
		a.t.Fatal(err)
	}
	cert := ca.Machine(a.t, catest.Identity(a.t, analysedNames[i]))
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		a.t.Fatal("the key does not sign")
	}
	store, err := identity.Open(filepath.Join(dir, "state"))
	if err != nil {
		a.t.Fatal(err)
	}
	credentials, err := identity.NewCredentials(time.Now(), key, cert.Certificate, ca.Bundle(), nil)
	if err != nil {
		a.t.Fatal(err)
	}
	if err := store.Save(credentials); err != nil {
		a.t.Fatal(err)
	}
}

// launch runs a node that start has prepared, the first time or again.
func (a *analysed) launch(i int, encapsulation string) {
	a.t.Helper()
	a.run(i, a.hosts[i].Command(a.daemon(i, encapsulation)...))
}

// daemon is the command of a node.
func (a *analysed) daemon(i int, encapsulation string) []string {
	dir := a.dirs[i]
	return []string{filepath.Join(binaries, "bailiwick-node"), "run", "--state-dir", filepath.Join(dir, "state"), "--socket", filepath.Join(dir, "node.sock"),
		"--log-level", "debug", "--policy", filepath.Join(dir, "policy.yaml"), "--policy-name", "Analysed",
		"--encapsulation", encapsulation, "--keylog", filepath.Join(dir, "keys"), "--audit-file", filepath.Join(dir, "audit")}
}

// run starts a command that becomes the daemon of a node.
func (a *analysed) run(i int, cmd *exec.Cmd) {
	a.t.Helper()
	dir := a.dirs[i]
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		a.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if a.processes[i], err = a.hosts[i].Start(cmd); err != nil {
		a.t.Fatal(err)
	}
	a.clients[i] = localapi.NewClient(filepath.Join(dir, "node.sock"))
}

func (a *analysed) until(what string, done func() bool) {
	a.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-a.ctx.Done():
			a.t.Fatalf("waiting until %s: %v", what, a.ctx.Err())
		case <-tick.C:
		}
	}
}

// serve answers one connection after the other on the right host, until the test ends.
func (a *analysed) serve(answer []byte) {
	a.t.Helper()
	err := a.hosts[1].Do(func() error {
		listener, err := net.ListenTCP("tcp", &net.TCPAddr{Port: analysedPort})
		if err != nil {
			return err
		}
		context.AfterFunc(a.ctx, func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, err = io.ReadFull(conn, make([]byte, len(answer)))
				if err == nil {
					_, _ = conn.Write(answer)
				}
				_ = conn.Close()
			}
		}()
		return nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *analysed) ask(question, want []byte) {
	a.t.Helper()
	var conn net.Conn
	err := a.hosts[0].Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", netip.AddrPortFrom(a.addresses[1], analysedPort).String(), 10*time.Second)
		return err
	})
	if err != nil {
		a.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		a.t.Fatal(err)
	}
	_, err = conn.Write(question)
	answer, readErr := io.ReadAll(conn)
	if err := errors.Join(err, readErr); err != nil || !bytes.Equal(answer, want) {
		a.t.Fatalf("the answer is %q, %v; want %q", answer, err, want)
	}
}

// rekey replaces the Child SA and then the IKE SA, asked for on the left host.
func (a *analysed) rekey() {
	a.t.Helper()
	now := func() localapi.Associations {
		s, err := a.clients[0].Associations(a.ctx)
		if err != nil {
			a.t.Fatal(err)
		}
		return s
	}
	before := now()
	if len(before.IKE) != 1 || len(before.Children) != 1 {
		a.t.Fatalf("there are %+v, want one IKE SA with one child", before)
	}
	for _, r := range []localapi.Rekey{{Child: before.Children[0].In}, {IKE: before.IKE[0].SPI}} {
		if err := a.clients[0].Rekey(a.ctx, r); err != nil {
			a.t.Fatal(err)
		}
		a.until("the rekey is done", func() bool {
			after := now()
			return len(after.IKE) == 1 && len(after.Children) == 1 &&
				(r.Child == "" || after.Children[0].In != r.Child) && (r.IKE == "" || after.IKE[0].SPI != r.IKE)
		})
	}
}

// TestAnalyserReadsWhatTheNodesSay lets tshark decrypt every IKE and ESP packet of two nodes, through a rekey of each
// kind, and finds nothing readable without the keys.
func TestAnalyserReadsWhatTheNodesSay(t *testing.T) {
	four := [2]netip.Addr{netip.MustParseAddr("10.84.0.1"), netip.MustParseAddr("10.84.0.2")}
	six := [2]netip.Addr{netip.MustParseAddr("fd84::1"), netip.MustParseAddr("fd84::2")}
	for _, c := range []struct {
		name                    string
		addresses               [2]netip.Addr
		ike, esp, encapsulation string
	}{
		{"gcm-native", four, "AES-GCM-256-SHA384-ecp384", "ESP[AES-GCM-256]", "nat"},
		{"gcm-udp", four, "AES-GCM-128-SHA256-x25519", "ESP[AES-GCM-128]", "always"},
		{"cbc-udp", four, "AES256-SHA256-ecp256", "ESP[AES-256,SHA256]", "always"},
		{"post-quantum", four, "AES-GCM-256-SHA384-x25519+mlkem768", "ESP[AES-GCM-256]", "nat"},
		{"gcm-native-ipv6", six, "AES-GCM-256-SHA256-x25519", "ESP[AES-GCM-256]", "nat"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := openAnalysed(t, c.addresses, c.ike, c.esp, c.encapsulation)
			question, answer := []byte("what is the combination of the safe?"), []byte("it is seven, four and then nineteen.")
			a.serve(answer)
			capture, err := a.hosts[0].Capture("eth0")
			if err != nil {
				t.Fatal(err)
			}
			a.ask(question, answer)
			a.rekey()
			a.ask(question, answer)
			frames, err := capture.Stop()
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range [][]byte{question, answer} {
				if found := tshark.Holding(frames, text); len(found) > 0 {
					t.Errorf("%d frames hold %q in clear", len(found), text)
				}
			}
			blind := a.analyse(frames, nil, "tcp", "tcp.payload")
			if len(blind) != 0 {
				t.Errorf("without keys tshark reads TCP in %d packets: %v", len(blind), blind)
			}
			keys, err := tshark.ReadKeys(filepath.Join(a.dirs[0], "keys"), filepath.Join(a.dirs[1], "keys"))
			if err != nil {
				t.Fatal(err)
			}
			a.judge(frames, keys, question, answer)
			a.certificates(frames, keys)
			a.profile(frames, len(keys))
		})
	}
}

func (a *analysed) analyse(frames []lab.Frame, keys tshark.Keys, filter string, fields ...string) []tshark.Packet {
	a.t.Helper()
	packets, err := tshark.Run(a.ctx, tshark.Query{Frames: frames, Keys: keys, Filter: filter, Fields: fields})
	if err != nil {
		a.t.Fatal(err)
	}
	return packets
}

// judge requires that the keys open everything, and that what is inside is what was said.
func (a *analysed) judge(frames []lab.Frame, keys tshark.Keys, question, answer []byte) {
	a.t.Helper()
	// Debian's tshark does not know extended sequence numbers, which two nodes use: it decrypts their ESP, but computes
	// another integrity value. With strongSwan, which does without them, e2e/interop has that checked too.
	esp := a.analyse(frames, keys, "esp", "esp.spi", "tcp.dstport", "tcp.payload")
	spis := map[string]bool{}
	said := map[string]int{}
	for i, p := range esp {
		if len(p[1]) != 1 {
			a.t.Errorf("ESP packet %d of SPI %v: tshark finds TCP to %v inside, want one segment", i+1, p[0], p[1])
		}
		spis[strings.Join(p[0], "")] = true
		for _, payload := range p[2] {
			said[payload]++
		}
	}
	if len(spis) != 4 {
		a.t.Errorf("ESP has %d SPIs, want 2 before and 2 after the rekey: %v", len(spis), spis)
	}
	for _, text := range [][]byte{question, answer} {
		if said[fmt.Sprintf("%x", text)] < 2 {
			a.t.Errorf("tshark read %q %d times, want 2; it read %v", text, said[fmt.Sprintf("%x", text)], said)
		}
	}
	// Exchange type 34 is IKE_SA_INIT, the only one in clear. 43 is IKE_INTERMEDIATE, whose keys do not outlive it and are
	// not logged.
	protected := a.analyse(frames, keys, "isakmp.exchangetype != 34 && isakmp.exchangetype != 43", "isakmp.exchangetype", "isakmp.enc.decrypted", "isakmp.id.data.fqdn")
	exchanges, names := map[string]int{}, map[string]bool{}
	for i, p := range protected {
		if len(p[1]) == 0 {
			a.t.Errorf("IKE message %d of exchange type %v was not decrypted", i+1, p[0])
		}
		exchanges[strings.Join(p[0], "")]++
		for _, name := range p[2] {
			names[name] = true
		}
	}
	for _, exchange := range []string{"35", "36", "37"} { // IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL
		if exchanges[exchange] < 2 {
			a.t.Errorf("tshark saw %d messages of exchange type %s, want a request and a response", exchanges[exchange], exchange)
		}
	}
	for _, name := range analysedNames {
		if !names[name] {
			a.t.Errorf("tshark saw the identities %v in IKE, want %s", names, name)
		}
	}
	if bad := a.analyse(frames, keys, "(isakmp.ikev2.integrity_checksum || _ws.malformed) && !(isakmp.exchangetype == 43)", "frame.number"); len(bad) != 0 {
		a.t.Errorf("tshark finds packets %v malformed or with a wrong integrity checksum", bad)
	}
}

// certificates requires that tshark takes apart the certificates that the nodes show each other in IKE_AUTH, each with that of
// its issuer, and finds what RFC 4945 5.1.3 and RFC 5280 4.2.1 ask for, and nothing to remark.
func (a *analysed) certificates(frames []lab.Frame, keys tshark.Keys) {
	a.t.Helper()
	shown := a.analyse(frames, keys, "isakmp.exchangetype == 35 && x509af.signedCertificate_element", "x509ce.dNSName", "x509ce.uniformResourceIdentifier",
		"x509ce.KeyPurposeId", "x509ce.KeyUsage.digitalSignature", "x509ce.KeyUsage.keyCertSign", "_ws.expert.message")
	var want []tshark.Packet
	for _, name := range analysedNames {
		const clientAuth, ipsecIKE = "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.17"
		want = append(want, tshark.Packet{{name}, {catest.Identity(a.t, name).URI()}, {clientAuth, ipsecIKE}, {"1", "0"}, {"0", "1"}, nil})
	}
	if !reflect.DeepEqual(shown, want) {
		a.t.Errorf("tshark finds the certificates %q, want %q", shown, want)
	}
}
