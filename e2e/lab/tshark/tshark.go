// Package tshark lets Wireshark's command line judge captures: an implementation of IKE and ESP that shares nothing with
// ours decrypts with the keys of a debug-only key log, and checks every integrity value on the way.
//
// Its invariant: what it returns is what tshark saw in exactly the given frames with exactly the given keys; no
// preference of a user has a say. It needs the Debian package tshark. It leaves capturing to e2e/lab and what the fields
// must be to the tests.
package tshark

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// separator stands between fields and between the values of one field; no field that tests ask for contains them.
const (
	separator  = "\t"
	aggregator = ","
)

// ErrKeyLog says that a line of a key log is not one that tshark understands.
var ErrKeyLog = errors.New("not a line of a key log")

// Keys are the lines of key logs: each is the value of a -o option of tshark and tells the keys of one SA.
type Keys []string

// ReadKeys reads key logs. SAs that stand in several of them, as both ends of an SA write it, are taken once.
func ReadKeys(paths ...string) (Keys, error) {
	var keys Keys
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read key log: %w", err)
		}
		for i, line := range strings.Split(strings.TrimSuffix(string(content), "\n"), "\n") {
			if !strings.HasPrefix(line, "uat:ikev2_decryption_table:") && !strings.HasPrefix(line, "uat:esp_sa:") {
				return nil, fmt.Errorf("%s, line %d: %w", path, i+1, ErrKeyLog)
			}
			keys = append(keys, line)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// Query asks for fields of the packets that a display filter selects.
type Query struct {
	Frames []lab.Frame
	Keys   Keys
	// Profile is the directory of a profile that has the keys; empty for none.
	Profile string
	Filter  string   // as of wireshark-filter(4); empty for all packets
	Fields  []string // names of fields
}

// Packet holds the values of the fields that were asked for, each with all its occurrences.
type Packet [][]string

// Run runs tshark.
func Run(ctx context.Context, q Query) ([]Packet, error) {
	dir, err := os.MkdirTemp("", "tshark")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	pcap := filepath.Join(dir, "capture.pcap")
	if err := lab.SavePcap(pcap, q.Frames); err != nil {
		return nil, fmt.Errorf("save the capture for tshark: %w", err)
	}
	if q.Profile != "" {
		if err := os.CopyFS(filepath.Join(dir, "config", "wireshark", "profiles", "test"), os.DirFS(q.Profile)); err != nil {
			return nil, fmt.Errorf("give tshark the profile: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, "tshark", q.arguments(pcap)...)
	// An empty home has no preferences, and no keys of earlier runs.
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+filepath.Join(dir, "config"))
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("tshark over %d frames with %d keys: %w: %s", len(q.Frames), len(q.Keys), err, strings.TrimSpace(errOut.String()))
	}
	return parse(out.String(), len(q.Fields))
}

func (q Query) arguments(pcap string) []string {
	args := []string{
		"-n", "-r", pcap, "-2", "-T", "fields", "-E", "separator=/t", "-E", "aggregator=" + aggregator, "-E", "occurrence=a",
	}
	if q.Profile != "" {
		args = append(args, "-C", "test")
	} else {
		args = append(args, "-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE")
	}
	for _, key := range q.Keys {
		args = append(args, "-o", key)
	}
	if q.Filter != "" {
		args = append(args, "-Y", q.Filter)
	}
	for _, field := range q.Fields {
		args = append(args, "-e", field)
	}
	return args
}

func parse(output string, fields int) ([]Packet, error) {
	var packets []Packet
	for line := range strings.Lines(output) {
		values := strings.Split(strings.TrimSuffix(line, "\n"), separator)
		if len(values) != fields {
			return nil, fmt.Errorf("tshark printed %d fields, want %d: %q", len(values), fields, line)
		}
		p := make(Packet, fields)
		for i, v := range values {
			if v != "" {
				p[i] = strings.Split(v, aggregator)
			}
		}
		packets = append(packets, p)
	}
	return packets, nil
}

// Holding returns the frames that hold the text anywhere, in any layer: what an eavesdropper finds without keys.
func Holding(frames []lab.Frame, text []byte) []lab.Frame {
	var found []lab.Frame
	for _, f := range frames {
		if bytes.Contains(f.Data, text) {
			found = append(found, f)
		}
	}
	return found
}
