// Package identity owns the node's key and certificate: how they are made, kept, renewed and replaced.
//
// Its invariant: the private key never leaves the machine, and one that was made in the TPM never the TPM; a certificate is only ever stored with its own key, and a
// failed join or renewal leaves what was there. It leaves the conversation with the controller to node/control, and the
// decision whether a peer is believed to pki/trust.
package identity

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/bailiwick-net/bailiwick/node/statefile"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

var (
	// ErrNotJoined says that this machine holds no certificate yet.
	ErrNotJoined = errors.New("this machine has not joined a fleet; run bailiwick-node join")
	// ErrJoined says that this machine holds a certificate already.
	ErrJoined = errors.New("this machine has joined a fleet already; run bailiwick-node leave first to join another one")
)

// Credentials are what a node proves itself with and whom it believes. A value never changes.
type Credentials struct {
	Identity pki.Identity
	Key      crypto.Signer
	Chain    []*x509.Certificate // leaf first, without the root
	Trust    trust.Bundle
	// Controllers are the addresses of the controller, host:port, in the order of preference.
	Controllers []string
}

// NewCredentials checks that chain and key belong together, that the leaf is a machine's and that the bundle vouches for
// it now.
func NewCredentials(now time.Time, key crypto.Signer, chain [][]byte, bundle trust.Bundle, controllers []string) (Credentials, error) {
	certs, err := trust.ParseChain(chain)
	if err != nil {
		return Credentials{}, fmt.Errorf("read the issued certificate: %w", err)
	}
	if len(certs) == 0 {
		return Credentials{}, errors.New("read the issued certificate: the chain is empty")
	}
	c := Credentials{Key: key, Chain: certs, Trust: bundle, Controllers: controllers}
	if err := c.check(); err != nil {
		return Credentials{}, err
	}
	if c.Identity, err = pki.IdentityFromCertificate(certs[0]); err != nil {
		return Credentials{}, fmt.Errorf("issued certificate: %w", err)
	}
	if _, err := bundle.Verify(now, certs, trust.Options{Usages: []trust.Usage{trust.ClientAuth}}); err != nil {
		return Credentials{}, fmt.Errorf("issued certificate is not vouched for by the trust bundle that came with it: %w", err)
	}
	return c, nil
}

func (c Credentials) check() error {
	own, err := x509.MarshalPKIXPublicKey(c.Key.Public())
	if err != nil {
		return fmt.Errorf("encode own public key: %w", err)
	}
	if !bytes.Equal(own, c.Chain[0].RawSubjectPublicKeyInfo) {
		return fmt.Errorf("certificate %s is for another key than the one stored with it", c.Chain[0].SerialNumber)
	}
	return nil
}

// Leaf is the machine certificate.
func (c Credentials) Leaf() *x509.Certificate { return c.Chain[0] }

// RawChain is the chain as DER, leaf first.
func (c Credentials) RawChain() [][]byte {
	raw := make([][]byte, len(c.Chain))
	for i, cert := range c.Chain {
		raw[i] = cert.Raw
	}
	return raw
}

// TLS is the certificate for the session with the controller.
func (c Credentials) TLS() tls.Certificate {
	return tls.Certificate{Certificate: c.RawChain(), PrivateKey: c.Key, Leaf: c.Chain[0]}
}

const (
	credentialsFile = "credentials.pem"
	pendingFile     = "join.key"
	maxFile         = 4 << 20

	typeKey        = "PRIVATE KEY"
	typeCert       = "CERTIFICATE"
	typeBundle     = "BAILIWICK TRUST BUNDLE"
	typeController = "BAILIWICK CONTROLLER"
)

// Store keeps Credentials in one file, so that key, certificate and trust change together or not at all.
type Store struct {
	dir  string
	keys Keys
}

// Open prepares the directory. Keys are made in files; see With.
func Open(dir string) (Store, error) {
	if err := statefile.Dir(dir); err != nil {
		return Store{}, err
	}
	return Store{dir: dir}, nil
}

// With is the store whose keys are made as these say.
func (s Store) With(keys Keys) Store { return Store{s.dir, keys} }

// Keys says where keys are made.
func (s Store) Keys() Keys { return s.keys }

// Dir is the state directory.
func (s Store) Dir() string { return s.dir }

func (s Store) path() string { return filepath.Join(s.dir, credentialsFile) }

// Save replaces the stored credentials.
func (s Store) Save(c Credentials) error {
	blocks, err := encodeKey(c.Key)
	if err != nil {
		return err
	}
	defer clear(blocks[0].Bytes)
	var out bytes.Buffer
	for _, cert := range c.Chain {
		blocks = append(blocks, &pem.Block{Type: typeCert, Bytes: cert.Raw})
	}
	blocks = append(blocks, &pem.Block{Type: typeBundle, Bytes: c.Trust.Append(nil)})
	for _, address := range c.Controllers {
		blocks = append(blocks, &pem.Block{Type: typeController, Bytes: []byte(address)})
	}
	for _, b := range blocks {
		if err := pem.Encode(&out, b); err != nil {
			return fmt.Errorf("encode credentials: %w", err)
		}
	}
	return statefile.Write(s.path(), out.Bytes())
}

// Load reads the stored credentials. It does not look at the validity of the certificate: an expired one is still the
// node's, and says so at the controller. ErrNotJoined where there is none.
func (s Store) Load() (Credentials, error) {
	content, err := statefile.Read(s.path(), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Credentials{}, ErrNotJoined
	}
	if err != nil {
		return Credentials{}, fmt.Errorf("load credentials: %w", err)
	}
	c, err := parse(content, s.keys)
	if err != nil {
		return Credentials{}, fmt.Errorf("load credentials from %s: %w; remove the file and join again", s.path(), err)
	}
	return c, nil
}

func parse(content []byte, keys Keys) (Credentials, error) {
	var c Credentials
	stored := storedKey{keys: keys}
	var chain [][]byte
	for len(bytes.TrimSpace(content)) > 0 {
		block, rest := pem.Decode(content)
		if block == nil {
			return Credentials{}, fmt.Errorf("%d octets at the end are not PEM", len(content))
		}
		content = rest
		if taken, err := stored.take(block); err != nil {
			return Credentials{}, err
		} else if taken {
			continue
		}
		switch block.Type {
		case typeCert:
			chain = append(chain, block.Bytes)
		case typeBundle:
			bundle, err := trust.ParseBundle(block.Bytes)
			if err != nil {
				return Credentials{}, err
			}
			c.Trust = bundle
		case typeController:
			c.Controllers = append(c.Controllers, string(block.Bytes))
		default:
			return Credentials{}, fmt.Errorf("unexpected PEM block %q", block.Type)
		}
	}
	var err error
	if c.Key, err = stored.key(); err != nil {
		return Credentials{}, err
	}
	certs, err := trust.ParseChain(chain)
	if err != nil {
		return Credentials{}, err
	}
	if c.Key == nil || len(certs) == 0 || c.Trust.IsZero() {
		return Credentials{}, errors.New("key, certificate or trust bundle is missing")
	}
	c.Chain = certs
	if err := c.check(); err != nil {
		return Credentials{}, err
	}
	if c.Identity, err = pki.IdentityFromCertificate(certs[0]); err != nil {
		return Credentials{}, err
	}
	return c, nil
}
