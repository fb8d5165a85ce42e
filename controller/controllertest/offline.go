package controllertest

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// An OfflineRoot is a root whose key the controller does not have.
type OfflineRoot struct {
	// Dir is its folder, KeyFile what opens it.
	Dir, KeyFile string

	t testing.TB
	f *Fleet
}

// OfflineRoot has a root that is kept off line certify the fleet's first CA. It is called before Start.
func (f *Fleet) OfflineRoot() *OfflineRoot {
	f.t.Helper()
	o := &OfflineRoot{filepath.Join(f.Dir, "root"), f.Config.CA.KeyFile, f.t, f}
	unlock, err := ca.KeyFile(o.KeyFile)
	if err == nil {
		_, err = ca.InitRoot(f.t.Context(), o.Dir, unlock, time.Now(), ca.Config{TrustDomain: "bank.example"})
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.Config.CA.OfflineRoot = true
	if _, err := controller.Load(f.t.Context(), f.Config); !errors.Is(err, controller.ErrNoCA) {
		f.t.Fatalf("without an answer of the root the controller says %v, want ErrNoCA", err)
	}
	request, err := os.ReadFile(filepath.Join(f.Config.StateDir, "issuing.csr"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.Config.CA.CertificateFile = filepath.Join(f.Dir, "issuing.pem")
	if err := os.WriteFile(f.Config.CA.CertificateFile, o.Certify(request), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return o
}

// open opens the root for as long as use takes.
func (o *OfflineRoot) open(use func(records *ca.FileJournal, root *x509.Certificate, key crypto.Signer) error) {
	o.t.Helper()
	unlock, err := ca.KeyFile(o.KeyFile)
	if err != nil {
		o.t.Fatal(err)
	}
	root, key, err := ca.LoadRoot(o.Dir, unlock)
	if err != nil {
		o.t.Fatal(err)
	}
	records, err := ca.OpenFileJournal(filepath.Join(o.Dir, ca.RootJournal))
	if err != nil {
		o.t.Fatal(err)
	}
	if err := errors.Join(use(records, root, key), records.Close()); err != nil {
		o.t.Fatal(err)
	}
}

// Certify answers a request, in PEM.
func (o *OfflineRoot) Certify(request []byte) (answer []byte) {
	o.t.Helper()
	block, _ := pem.Decode(request)
	if block == nil {
		o.t.Fatalf("the request is %q", request)
	}
	pointers, err := revocation.NewPointers(o.f.Config.Revocation.URL, 1)
	if err != nil {
		o.t.Fatal(err)
	}
	o.open(func(records *ca.FileJournal, root *x509.Certificate, key crypto.Signer) error {
		issuing, err := ca.CertifyRequest(o.t.Context(), records, time.Now(), ca.Config{TrustDomain: "bank.example", Pointers: pointers}, root, key, block.Bytes)
		if err != nil {
			return err
		}
		for _, der := range [][]byte{issuing.Raw, root.Raw} {
			answer = append(answer, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		return nil
	})
	return answer
}

// List signs the next list, on which these CAs are from now on.
func (o *OfflineRoot) List(revoke ...string) (der []byte) {
	o.t.Helper()
	o.open(func(records *ca.FileJournal, root *x509.Certificate, key crypto.Signer) (err error) {
		_, der, err = ca.SignRootList(records, time.Now(), root, key, ca.RootListOrder{Revoke: revoke, Reason: revocation.CACompromise})
		return err
	})
	return der
}
