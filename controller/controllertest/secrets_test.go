package controllertest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// branchDocuments let the machines in Servers negotiate by a preshared key, and those in SecureServers by another one.
const branchDocuments = `apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: Everything
filters:
  - {source: me, destination: any}
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Protect
action: negotiate
offers: ["ESP[AES-GCM-256]"]
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: Branch
rules:
  - name: All
    filterList: Everything
    filterAction: Protect
    authentication: [{method: psk, secretRef: branch}]
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: Vault
rules:
  - name: All
    filterList: Everything
    filterAction: Protect
    authentication: [{method: psk, secretRef: vault, ppkRef: quantum}]
---
apiVersion: bailiwick.net/v1alpha1
kind: Link
policy: Branch
container: ou=Servers,dc=bank,dc=example
order: 1
---
apiVersion: bailiwick.net/v1alpha1
kind: Link
policy: Vault
container: ou=SecureServers,dc=bank,dc=example
order: 1
`

// journal collects the controller's log.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// Secrets is the secret service over the admin socket.
func (f *Fleet) secrets() adminv1.SecretServiceClient {
	f.t.Helper()
	return adminv1.NewSecretServiceClient(f.Conn())
}

func (f *Fleet) setSecret(name, kind, value string, overlap time.Duration) *adminv1.SetSecretResponse {
	f.t.Helper()
	r, err := f.secrets().SetSecret(f.Context(), &adminv1.SetSecretRequest{Name: name, Kind: kind, Value: []byte(value), Overlap: durationpb.New(overlap)})
	if err != nil {
		f.t.Fatalf("setting secret %s: %v", name, err)
	}
	return r
}

// wantSecrets waits for secrets with these names and values, "name=value" or "name=value<previous".
func (s *Session) wantSecrets(want ...string) {
	s.t.Helper()
	var last string
	for {
		m, err := s.next()
		if err != nil {
			s.t.Fatalf("waiting for the secrets %q: %v; the last were %q", want, err, last)
		}
		s.note(m)
		if m.GetSecrets() == nil {
			continue
		}
		var got []string
		for _, x := range m.GetSecrets().GetSecrets() {
			text := x.GetName() + "=" + string(x.GetValue())
			if len(x.GetPrevious()) > 0 {
				text += "<" + string(x.GetPrevious())
			}
			got = append(got, text)
		}
		if last = fmt.Sprintf("%q", got); last == fmt.Sprintf("%q", want) {
			return
		}
	}
}

const (
	redSecret   = "the red key of the branch office"
	greenSecret = "the green key of the branch office"
	vaultSecret = "the key of the vault, thirty-two and more"
)

// TestSecretsReachOnlyWhoNeedsThem is the life of preshared keys from the administrator to the nodes, through a change
// and a restart. In the end nothing that the controller wrote or said to administrators holds one of them.
func TestSecretsReachOnlyWhoNeedsThem(t *testing.T) {
	f := New(t, Bank)
	var log journal
	f.Config.Log = hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: &log})
	f.Start()
	f.Apply(branchDocuments)
	if r := f.setSecret("branch", "", redSecret+"\n", 0); r.GetOutcome() != "created" || r.GetSecret().GetMachines() != 1 {
		t.Errorf("outcome %q for %d machines, wanted created for 1", r.GetOutcome(), r.GetSecret().GetMachines())
	}
	f.setSecret("vault", "psk", vaultSecret, 0)
	f.setSecret("quantum", "ppk", vaultSecret, 0)

	files, sql, ws := f.Node("files1"), f.Node("sql1"), f.Node("ws1")
	hello := func(n *Node) *Session { return n.Connect(&nodev1.Hello{Version: "scripted"}) }
	server, secure, workstation := hello(files), hello(sql), hello(ws)
	server.wantSecrets("branch=" + redSecret)
	secure.wantSecrets("quantum="+vaultSecret, "vault="+vaultSecret)
	workstation.wantSecrets()

	// A change reaches who has it at once, with the value before for its time; after a restart as well.
	f.setSecret("branch", "psk", greenSecret, time.Hour)
	server.wantSecrets("branch=" + greenSecret + "<" + redSecret)
	f.Restart()
	server = hello(files)
	server.wantSecrets("branch=" + greenSecret + "<" + redSecret)
	f.setSecret("branch", "psk", greenSecret, 0)
	server.wantSecrets("branch=" + greenSecret)

	// A machine that moves gets the secrets of its new policy before the policy, and no others.
	f.WriteDirectory(strings.ReplaceAll(Bank, "cn=files1,ou=Servers", "cn=files1,ou=SecureServers"))
	server.wantSecrets("quantum="+vaultSecret, "vault="+vaultSecret)
	server.WantAssignment("Vault")

	// What policies name cannot be deleted; what is not there is told.
	_, err := f.secrets().DeleteSecret(f.Context(), &adminv1.DeleteSecretRequest{Name: "branch"})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), `used by Policy "Branch"`) {
		t.Errorf("deleting a secret in use: %v", err)
	}
	if _, err = f.secrets().DeleteSecret(f.Context(), &adminv1.DeleteSecretRequest{Name: "nobody"}); status.Code(err) != codes.NotFound {
		t.Errorf("deleting what is not there: %v", err)
	}
	listed, err := f.secrets().ListSecrets(f.Context(), &adminv1.ListSecretsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	machines := map[string]uint32{}
	for _, s := range listed.GetSecrets() {
		machines[s.GetName()+" "+s.GetKind()] = s.GetMachines()
	}
	if want := map[string]uint32{"branch psk": 0, "quantum ppk": 2, "vault psk": 2}; fmt.Sprint(machines) != fmt.Sprint(want) {
		t.Errorf("machines by secret are %v, wanted %v", machines, want)
	}
	f.wantNowhere(log.String(), listed)
}

// wantNowhere looks for the secrets in the controller's log, in what administrators get and in every file below the
// state directory, which includes the etcd's.
func (f *Fleet) wantNowhere(log string, listed proto.Message) {
	f.t.Helper()
	places := map[string]string{"log": log, "secret list": protojson.Format(listed)}
	add := func(what string, m proto.Message, err error) {
		f.t.Helper()
		if err != nil {
			f.t.Fatalf("%s: %v", what, err)
		}
		places[what] = protojson.Format(m)
	}
	documents, err := f.Documents().ListDocuments(f.Context(), &adminv1.ListDocumentsRequest{})
	add("documents", documents, err)
	policies, err := f.Documents().ListPolicies(f.Context(), &adminv1.ListPoliciesRequest{})
	add("policies", policies, err)
	all, err := f.Machines().ListMachines(f.Context(), &adminv1.ListMachinesRequest{})
	add("machines", all, err)
	nodes, err := f.Machines().ListNodes(f.Context(), &adminv1.ListNodesRequest{})
	add("nodes", nodes, err)
	explained, err := f.Machines().ExplainMachine(f.Context(), &adminv1.ExplainMachineRequest{Machine: "files1"})
	add("explain", explained, err)
	octets := 0
	err = filepath.WalkDir(f.Config.StateDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		places[path] = string(content)
		octets += len(content)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	if octets == 0 || !strings.Contains(log, "secret written") || !strings.Contains(protojson.Format(listed), "branch") {
		f.t.Errorf("%d octets of state, or the log or the list is not what was to be searched", octets)
	}
	inState := false
	for place, text := range places {
		inState = inState || strings.Contains(text, "documents/FilterList/Everything")
		for _, secret := range []string{redSecret, greenSecret, vaultSecret} {
			for _, form := range formsOf(secret) {
				if strings.Contains(text, form) {
					f.t.Errorf("%s holds a secret as %.6s...", place, form)
				}
			}
		}
	}
	if !inState {
		f.t.Error("the policy documents are in no file of the state, so the search there proves nothing")
	}
}

// formsOf writes a secret as programs do by accident. Base64 has three forms, by where in a longer text it begins.
func formsOf(secret string) []string {
	forms := []string{
		secret, strings.ToUpper(hex.EncodeToString([]byte(secret))), hex.EncodeToString([]byte(secret)),
		strings.Trim(fmt.Sprintf("%d", []byte(secret)), "[]"), fmt.Sprintf("% x", secret), strings.Trim(fmt.Sprintf("%+q", strings.Join(strings.Split(secret, ""), "\x00")), `"`),
		strings.Join(strings.Split(secret, ""), "\x00"), // UTF-16, as Windows writes
	}
	for skip := range 3 {
		encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", skip) + secret))
		forms = append(forms, encoded[4:len(encoded)-4])
	}
	return forms
}

// TestSecretsWithoutTheirKey takes the file of the key away: the nodes keep what they have, and administrators are told.
func TestSecretsWithoutTheirKey(t *testing.T) {
	f := New(t, Bank)
	f.Start()
	f.Apply(branchDocuments)
	f.setSecret("branch", "psk", redSecret, 0)
	f.Stop()
	key := filepath.Join(f.Config.StateDir, "secrets.key")
	content, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	f.Start()
	s := f.Node("files1").Connect(&nodev1.Hello{Version: "scripted"})
	s.wantSecrets() // the node keeps what a policy of its names
	r, err := f.secrets().ListSecrets(f.Context(), &adminv1.ListSecretsRequest{})
	if err != nil || !strings.Contains(r.GetSecrets()[0].GetProblem(), key) {
		t.Errorf("listed are %v, error %v; wanted the name of the missing file", r.GetSecrets(), err)
	}
	_, err = f.secrets().SetSecret(f.Context(), &adminv1.SetSecretRequest{Name: "branch", Value: []byte(greenSecret)})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "restore the file") {
		t.Errorf("setting without the key: %v", err)
	}
	if err := os.WriteFile(key, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f.Restart()
	f.Node("files1").Connect(&nodev1.Hello{Version: "scripted"}).wantSecrets("branch=" + redSecret)
}
