package scenarios

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/tshark"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// profile turns the key log of the left node into a profile of Wireshark, and lets tshark read everything with it.
func (a *analysed) profile(frames []lab.Frame, want int) {
	a.t.Helper()
	dir := filepath.Join(a.dirs[0], "profile")
	out, code := a.command(0, "ike", "wireshark", filepath.Join(a.dirs[0], "keys"), dir)
	if code != 0 {
		a.t.Fatalf("ike wireshark ends with %d: %s", code, out)
	}
	for protocol, filter := range map[string]string{"ESP": "esp && !tcp", "IKE": "isakmp.exchangetype == 35 && !isakmp.enc.decrypted"} {
		all, err := tshark.Run(a.ctx, tshark.Query{Frames: frames, Profile: dir, Filter: filter, Fields: []string{"frame.number"}})
		if err != nil {
			a.t.Fatal(err)
		}
		if len(all) != 0 {
			a.t.Errorf("with the profile tshark does not decrypt %d packets of %s", len(all), protocol)
		}
	}
	rows := 0
	for _, name := range []string{"ikev2_decryption_table", "esp_sa"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			a.t.Fatal(err)
		}
		rows += bytes.Count(content, []byte("\n"))
	}
	if rows != want {
		a.t.Errorf("the profile has the keys of %d SAs, want %d", rows, want)
	}
	if _, code := a.command(0, "ike", "wireshark", filepath.Join(a.dirs[0], "keys"), dir); code != 1 {
		a.t.Errorf("a second time, into the same directory, ends with %d", code)
	}
}

// command runs a command of bailiwick-node against a node, and returns what it printed and its exit code.
func (a *analysed) command(node int, args ...string) (string, int) {
	a.t.Helper()
	cmd := exec.CommandContext(a.ctx, filepath.Join(binaries, "bailiwick-node"), append([]string{"--socket", filepath.Join(a.dirs[node], "node.sock")}, args...)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		a.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestANodeTellsWhatItDid asks a node about a peer in every way there is: trace, counters, metrics, status, audit.
func TestANodeTellsWhatItDid(t *testing.T) {
	four := [2]netip.Addr{netip.MustParseAddr("10.85.0.1"), netip.MustParseAddr("10.85.0.2")}
	a := openAnalysed(t, four, "AES-GCM-128-SHA256-x25519", "ESP[AES-GCM-128]", "always")
	a.serve([]byte("answer"))
	// Somebody watches. When it begins does not matter: what was before comes first.
	watch := exec.CommandContext(a.ctx, filepath.Join(binaries, "bailiwick-node"), "--socket", filepath.Join(a.dirs[1], "node.sock"), "ike", "trace", "left", "--history", "--follow")
	pipe, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	a.ask([]byte("answer"), []byte("answer"))
	live := bufio.NewScanner(pipe)
	established := regexp.MustCompile(`^\S+Z [0-9a-f]{16} 10\.85\.0\.1:\d+ left\.bank\.example decided established with left\.bank\.example, authenticated by certificate`)
	see := func(what *regexp.Regexp) {
		t.Helper()
		for live.Scan() {
			if what.MatchString(live.Text()) {
				return
			}
		}
		t.Fatalf("the watched trace ends before %s: %v", what, live.Err())
	}
	see(established)
	filters, _ := a.command(0, "filters")
	if !regexp.MustCompile(`(?m)^\S+ +[1-9]\d* +.* Between *$`).MatchString(filters) || !regexp.MustCompile(`(?m)^\S+ +0 +`).MatchString(filters) {
		t.Errorf("filters show no packets of rule Between, or packets of every filter:\n%s", filters)
	}
	before, err := a.clients[0].Associations(a.ctx)
	if err != nil || len(before.Children) != 1 {
		t.Fatalf("%+v, %v", before, err)
	}
	if err := a.clients[0].Rekey(a.ctx, localapi.Rekey{Child: before.Children[0].In}); err != nil {
		t.Fatal(err)
	}
	see(regexp.MustCompile(` left\.bank\.example received CREATE_CHILD_SA request \d+ .*N\(REKEY_SA\)`))
	see(regexp.MustCompile(` decided remove Child SA in [0-9a-f]{8} out ` + before.Children[0].In))
	if err := watch.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, pipe)
	if err := watch.Wait(); err != nil {
		t.Errorf("after Ctrl-C the watched trace ends with %v", err)
	}

	history, code := a.command(0, "ike", "trace", "right", "--history")
	for _, want := range []string{
		` 10\.85\.0\.2:500 - sent IKE_SA_INIT request 0 SA KE Nonce `,
		` 10\.85\.0\.2:500 - received IKE_SA_INIT response 0 SA KE Nonce `,
		` 10\.85\.0\.2:4500 - sent IKE_AUTH request 1 IDi CERT `,
		` right\.bank\.example decided install Child SA in [0-9a-f]{8} out [0-9a-f]{8} transport \[10\.85\.0\.1 protocol 6\] to \[10\.85\.0\.2 protocol 6\]`,
		` right\.bank\.example state authenticating -> established`,
	} {
		if !regexp.MustCompile(want).MatchString(history) {
			t.Errorf("the history has no line %q:\n%s", want, history)
		}
	}
	if code != 0 {
		t.Errorf("the history ends with %d", code)
	}
	var sas localapi.Associations
	a.until("the rekey is done", func() bool {
		sas, err = a.clients[0].Associations(a.ctx)
		return err == nil && len(sas.Children) == 1
	})
	bySPI, _ := a.command(0, "ike", "trace", sas.Children[0].Out, "--history", "--output", "json")
	d := json.NewDecoder(strings.NewReader(bySPI))
	kinds := map[string]int{}
	for d.More() {
		var line struct{ Kind, IKE string }
		if err := d.Decode(&line); err != nil {
			t.Fatalf("%v in %s", err, bySPI)
		}
		if line.IKE != sas.IKE[0].SPI {
			t.Errorf("a line is of IKE SA %s, want %s", line.IKE, sas.IKE[0].SPI)
		}
		kinds[line.Kind]++
	}
	if kinds["sent"] < 2 || kinds["received"] < 2 || kinds["state"] < 3 {
		t.Errorf("by the SPI of a Child SA there are %v", kinds)
	}
	if out, code := a.command(0, "ike", "trace", "10.85.0.77", "--history"); code != 1 || !strings.Contains(out, "nothing is remembered") {
		t.Errorf("of an unknown peer: %d, %s", code, out)
	}

	counters, _ := a.command(0, "counters")
	for _, want := range []string{`ike +main_modes +1 `, `ike +quick_modes +1 `, `ike +quick_mode_rekeys +1 `, `ipsec +active_security_associations +1 `, `ipsec +confidential_bytes_sent +[1-9]`} {
		if !regexp.MustCompile(want).MatchString(counters) {
			t.Errorf("the counters have no %q:\n%s", want, counters)
		}
	}
	if text := a.metrics(0); !strings.Contains(text, "\nbailiwick_ike_main_modes_total 1\n") {
		t.Errorf("the metrics are\n%s", text)
	}
	status, _ := a.command(0, "status")
	if !strings.HasPrefix(status, "WARNING") || !strings.Contains(status, "ALL KEYS ARE WRITTEN") {
		t.Errorf("status does not warn of the key log:\n%s", status)
	}
	if s, err := a.clients[0].Status(a.ctx); err != nil || s.Statistics["main_modes"] != 1 || s.KeyLog == "" {
		t.Errorf("status has the statistics %v and the key log %q, %v", s.Statistics, s.KeyLog, err)
	}
	a.until("the audit file has the associations", func() bool {
		ids := a.audit(0)
		return slices.Contains(ids, 4709) && slices.Contains(ids, 4651) && slices.Contains(ids, 5451)
	})
	log, err := os.ReadFile(filepath.Join(a.dirs[0], "log"))
	if err != nil || !bytes.Contains(log, []byte("id=4651 event=main-mode-established-by-certificate")) || !bytes.Contains(log, []byte("ALL KEYS ARE WRITTEN")) {
		t.Errorf("the log has no audit event or no warning of the key log: %v", err)
	}
}

// metrics asks a node as Prometheus does.
func (a *analysed) metrics(node int) string {
	a.t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(a.dirs[node], "node.sock"))
	}}}
	request, err := http.NewRequestWithContext(a.ctx, http.MethodGet, "http://node/v1/metrics", nil)
	if err != nil {
		a.t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		a.t.Fatalf("%s %v: %s, %v", response.Status, response.Header, text, err)
	}
	return string(text)
}

// audit are the numbers of the events in the audit file of a node.
func (a *analysed) audit(node int) []int {
	a.t.Helper()
	content, err := os.ReadFile(filepath.Join(a.dirs[node], "audit"))
	if err != nil {
		a.t.Fatal(err)
	}
	var ids []int
	for line := range bytes.Lines(content) {
		var e struct{ ID int }
		if err := json.Unmarshal(line, &e); err != nil {
			a.t.Fatalf("%s: %v", line, err)
		}
		ids = append(ids, e.ID)
	}
	return ids
}
