package controllertest

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/controller"
	"github.com/bailiwick-net/bailiwick/directory/settings"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

const branch = `dn: dc=branch,dc=test
objectClass: domain
dc: branch

dn: cn=till1,dc=branch,dc=test
objectClass: device
cn: till1

dn: cn=ws1,dc=branch,dc=test
objectClass: device
cn: ws1
`

// withBranch makes the directory of a fleet one of two.
func withBranch(t *testing.T, f *Fleet) (path string) {
	t.Helper()
	path = filepath.Join(f.Dir, "branch.ldif")
	if err := os.WriteFile(path, []byte(branch), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Config.Directory = settings.Directory{Sources: []settings.Source{
		{Name: settings.DefaultName, LDIF: &settings.LDIF{Path: f.LDIF()}}, {Name: "branch", LDIF: &settings.LDIF{Path: path}},
	}}
	return path
}

// TestSecondDirectory: a fleet gets a second directory, whose machines join and keep their sessions when either directory is
// lost, also over a restart; and the controller does not start without a source by mistake.
func TestSecondDirectory(t *testing.T) {
	f := Start(t, Bank)
	first := f.Node("ws1")
	first.Connect(&nodev1.Hello{}).AcceptAssignment()
	f.Stop()

	path := withBranch(t, f)
	f.Config.Metrics.Listen = "127.0.0.1:0"
	f.Start()
	first.Connect(&nodev1.Hello{}).AcceptAssignment()
	till := f.Node("till1")
	till.Connect(&nodev1.Hello{}).AcceptAssignment()
	// The name is the earlier directory's; the later one's machine is there under another.
	f.Node("ws1.branch.test").Connect(&nodev1.Hello{}).AcceptAssignment()

	answer, err := http.Get("http://" + f.running.controller.MetricsAddress().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || !strings.Contains(string(text), `bailiwick_directory_machines{source="branch"} 2`) {
		t.Errorf("metrics: %v\n%s", err, text)
	}
	// When CAs and certificates end stands beside it.
	for _, want := range []string{
		`bailiwick_certificate_not_after_timestamp_seconds{profile="machine",whose="ws1"} `, `{profile="server",whose=`, `{profile="root-ca",whose="CN=Bailiwick root CA `,
		`{profile="issuing-ca",whose="CN=Bailiwick issuing CA `, `bailiwick_revocation_lists_failing 0`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the metrics lack %q:\n%s", want, text)
		}
	}

	// Both files are lost, and nobody is cut off.
	for _, p := range []string{path, f.LDIF()} {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	f.Stop()
	f.Start()
	first.Connect(&nodev1.Hello{}).AcceptAssignment()
	till.Connect(&nodev1.Hello{}).AcceptAssignment()
	f.Stop()

	// Without the source, only on purpose.
	f.WriteDirectory(Bank)
	both := f.Config.Directory.Sources
	f.Config.Directory.Sources = both[:1]
	if _, err := controller.Load(t.Context(), f.Config); !errors.Is(err, controller.ErrConfig) || !strings.Contains(err.Error(), "directory.removed: [branch]") {
		t.Fatalf("starting without a source gave %v, wanted a refusal that says how", err)
	}
	f.Config.Directory.Removed = []string{"branch"}
	f.Start()
	first.Connect(&nodev1.Hello{}).AcceptAssignment()
	f.Stop()
	f.Config.Directory.Removed = nil
	f.Start()
}
