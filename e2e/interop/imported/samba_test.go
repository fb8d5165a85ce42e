// Package imported reads the IPsec policies of a real Active Directory domain, as an administrator would: Samba makes the
// domain, and the command imports over LDAP.
//
// Its invariant: everything is gone when the test ends. It leaves what the objects say in detail to policies/gpipsec.
package imported

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
	"github.com/bailiwick-net/bailiwick/policies"
)

// samba is an Active Directory domain controller, apart from the machine's own packages.
var samba = root.Config{Suite: "bookworm", Packages: []string{"samba", "samba-ad-dc", "samba-ad-provision", "python3-samba"}}

const (
	address  = "10.77.0.1"
	password = "Passw0rd!lab"
)

// TestImportFromADomain makes a domain, and imports its policies with a simple bind over LDAPS. They are those of the
// file that other tests use, whatever order the server returns them in.
func TestImportFromADomain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r, err := root.Open(ctx, samba)
	if errors.Is(err, root.ErrUnreachable) {
		t.Skipf("the packages of Samba are needed, which are not installed beside what else the tests need, and no mirror gives them: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	binary := path("bailiwick")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/bailiwick-net/bailiwick/cmd/bailiwick").CombinedOutput(); err != nil {
		t.Fatalf("build bailiwick: %v\n%s", err, out)
	}
	l, err := lab.New("bwad-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	host, err := l.Host("dc")
	if err == nil {
		err = host.AddAddress("lo", netip.MustParsePrefix(address+"/32"))
	}
	if err != nil {
		t.Fatal(err)
	}
	writeCertificate(t, path)
	if err := os.WriteFile(path("password"), []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	provision := r.Command([]string{dir}, "samba-tool", "domain", "provision", "--realm=LAB.EXAMPLE", "--domain=LAB", "--server-role=dc",
		"--dns-backend=SAMBA_INTERNAL", "--adminpass="+password, "--targetdir="+path("domain"), "--host-name=dc1", "--host-ip="+address,
		"--users=root", "--option=vfs objects=dfs_samba4 acl_xattr xattr_tdb", "--option=ldb:nosync = true")
	if out, err := host.RunContext(ctx, provision...); err != nil {
		t.Fatalf("make the domain: %v\n%s", err, out)
	}
	log, err := os.Create(path("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := host.Command(r.Command([]string{dir}, "sh", "-c", "mkdir -p /run/samba; exec samba -i -M single -s "+path("domain")+"/etc/smb.conf "+
		"'--option=server services=ldap' '--option=tls certfile="+path("server.pem")+"' '--option=tls keyfile="+path("server.key")+"' '--option=tls cafile='")...)
	cmd.Stdout, cmd.Stderr = log, log
	server, err := host.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	importing := []string{
		binary, "import", "windows", "--ldap", "ldaps://" + address, "--base", "DC=lab,DC=example", "--bind-dn", "CN=Administrator,CN=Users,DC=lab,DC=example",
		"--password-file", path("password"), "--ldap-ca", path("server.pem"),
	}
	var text []byte
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		var said strings.Builder
		cmd := host.Command(importing...)
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err == nil {
			text = out
			break
		}
		select {
		case <-tick.C:
		case <-server.Done():
			content, _ := os.ReadFile(path("log"))
			t.Fatalf("samba ended:\n%s", content)
		case <-ctx.Done():
			content, _ := os.ReadFile(path("log"))
			t.Fatalf("the import does not succeed: %v\n%s\n%s", err, said.String(), content)
		}
	}
	got, err := policies.Decode("imported.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("../../../policies/gpipsec/testdata/samba.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want, err := policies.Decode("samba.yaml", file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want.Export()), string(got.Export())); diff != "" {
		t.Errorf("the policies of the domain are others than those of the file (-file +domain):\n%s", diff)
	}
}

// writeCertificate makes the certificate of the server, which clients trust by itself: the one that Samba makes has no
// subject alternative name.
func writeCertificate(t *testing.T, path func(string) string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "dc1.lab.example"}, IPAddresses: []net.IP{net.ParseIP(address)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"server.pem": {Type: "CERTIFICATE", Bytes: cert}, "server.key": {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path(name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
