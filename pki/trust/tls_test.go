package trust_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

func asServer(template *x509.Certificate) {
	template.ExtKeyUsage, template.UnknownExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, nil
}

func tlsCertificate(parties ...*party) tls.Certificate {
	c := tls.Certificate{PrivateKey: parties[0].key}
	for _, p := range parties {
		c.Certificate = append(c.Certificate, p.cert.Raw)
	}
	return c
}

// handshake runs TLS between two configs in memory, moves one octet each way, and returns what each side said.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error, resumed bool) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		done <- exchange(tls.Server(conn, server))
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := tls.Client(conn, client)
	clientErr = exchange(c)
	resumed = c.ConnectionState().DidResume
	if clientErr != nil {
		conn.Close()
	}
	return <-done, clientErr, resumed
}

// exchange writes and reads an octet: in TLS 1.3 a client learns of its refusal from the first read alone.
func exchange(c *tls.Conn) error {
	if err := c.Handshake(); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// world is a controller and a node with the configs that the documentation of TLSVerifyConnection asks for.
type world struct {
	root, issuing, controller, node *party

	bundle           trust.Bundle
	revoked          trust.Revocations
	nodeNow, ctrlNow time.Time
	server, client   *tls.Config
}

func newWorld(t *testing.T) *world {
	w := &world{nodeNow: noon, ctrlNow: noon}
	w.root = issue(t, nil, "root", asCA)
	w.issuing = issue(t, w.root, "issuing", asCA)
	w.controller = issue(t, w.issuing, "controller.bank.example", asServer)
	w.node = issue(t, w.issuing, "sql1.bank.example", nil)
	w.bundle = bundleOf(t, w.root)
	w.server = &tls.Config{
		Certificates: []tls.Certificate{tlsCertificate(w.controller, w.issuing, w.root)},
		ClientAuth:   tls.RequireAnyClientCert,
		VerifyConnection: trust.TLSVerifyConnection(func() (trust.Bundle, trust.Options, error) {
			return w.bundle, trust.Options{Usages: []trust.Usage{trust.ClientAuth}, Revoked: w.revoked}, nil
		}, func() time.Time { return w.ctrlNow }),
	}
	w.client = &tls.Config{
		Certificates:       []tls.Certificate{tlsCertificate(w.node, w.issuing)},
		InsecureSkipVerify: true,
		ServerName:         "controller.bank.example",
		VerifyConnection: trust.TLSVerifyConnection(func() (trust.Bundle, trust.Options, error) {
			return w.bundle, trust.Options{Usages: []trust.Usage{trust.ServerAuth}, HostName: "controller.bank.example"}, nil
		}, func() time.Time { return w.nodeNow }),
	}
	return w
}

func TestTLSAccepts(t *testing.T) {
	w := newWorld(t)
	if serverErr, clientErr, _ := handshake(t, w.server, w.client); serverErr != nil || clientErr != nil {
		t.Fatalf("server %v, client %v, want both content", serverErr, clientErr)
	}
}

func TestTLSServerRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*testing.T, *world)
		reason trust.Reason
	}{
		{"foreign certificate", func(t *testing.T, w *world) {
			stranger := issue(t, nil, "root", asCA)
			w.client.Certificates = []tls.Certificate{tlsCertificate(issue(t, stranger, "sql1.bank.example", nil), stranger)}
		}, trust.ReasonUnknownIssuer},
		{"clock a year late", func(_ *testing.T, w *world) { w.ctrlNow = noon.AddDate(1, 0, 0) }, trust.ReasonExpired},
		{"revoked", func(t *testing.T, w *world) { w.revoked = revoked(t, nil, keyID(t, w.node)).Revoked }, trust.ReasonRevoked},
		{"server's certificate as client", func(_ *testing.T, w *world) {
			w.client.Certificates = []tls.Certificate{tlsCertificate(w.controller, w.issuing)}
		}, trust.ReasonWrongUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.change(t, w)
			serverErr, clientErr, _ := handshake(t, w.server, w.client)
			if reason, _ := trust.ReasonOf(serverErr); reason != c.reason {
				t.Errorf("server says %v, want %v", serverErr, c.reason)
			}
			if clientErr == nil {
				t.Error("client got an answer")
			}
		})
	}
}

func TestTLSClientRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*testing.T, *world)
		reason trust.Reason
	}{
		{"foreign server", func(t *testing.T, w *world) {
			stranger := issue(t, nil, "root", asCA)
			w.server.Certificates = []tls.Certificate{tlsCertificate(issue(t, stranger, "controller.bank.example", asServer), stranger)}
		}, trust.ReasonUnknownIssuer},
		{"machine as server", func(_ *testing.T, w *world) {
			w.server.Certificates = []tls.Certificate{tlsCertificate(w.node, w.issuing)}
		}, trust.ReasonWrongUsage},
		{"other server of the fleet", func(t *testing.T, w *world) {
			w.server.Certificates = []tls.Certificate{tlsCertificate(issue(t, w.issuing, "other.bank.example", asServer), w.issuing)}
		}, trust.ReasonNameMismatch},
		{"clock a year early", func(_ *testing.T, w *world) { w.nodeNow = noon.AddDate(-1, 0, 0) }, trust.ReasonNotYetValid},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.change(t, w)
			_, clientErr, _ := handshake(t, w.server, w.client)
			if reason, _ := trust.ReasonOf(clientErr); reason != c.reason {
				t.Errorf("client says %v, want %v", clientErr, c.reason)
			}
		})
	}
}

// A resumed connection is verified again: a certificate revoked in between is refused.
func TestTLSVerifiesResumedConnections(t *testing.T) {
	w := newWorld(t)
	w.client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for i, want := range []bool{false, true} {
		serverErr, clientErr, resumed := handshake(t, w.server, w.client)
		if serverErr != nil || clientErr != nil || resumed != want {
			t.Fatalf("connection %d: server %v, client %v, resumed %v, want resumed %v", i+1, serverErr, clientErr, resumed, want)
		}
	}
	w.revoked = revoked(t, nil, keyID(t, w.node)).Revoked
	serverErr, _, _ := handshake(t, w.server, w.client)
	if reason, _ := trust.ReasonOf(serverErr); reason != trust.ReasonRevoked {
		t.Errorf("server says %v to a resumed connection of a revoked node, want revoked", serverErr)
	}
}

func TestTLSRefusesWithoutMaterial(t *testing.T) {
	w := newWorld(t)
	broken := errors.New("trust bundle cannot be read")
	w.server.VerifyConnection = trust.TLSVerifyConnection(func() (trust.Bundle, trust.Options, error) {
		return trust.Bundle{}, trust.Options{}, broken
	}, func() time.Time { return noon })
	if serverErr, _, _ := handshake(t, w.server, w.client); !errors.Is(serverErr, broken) {
		t.Errorf("server says %v, want %v", serverErr, broken)
	}
}

func TestPinnedVerify(t *testing.T) {
	w := newWorld(t)
	stranger := issue(t, nil, "root", asCA)
	impostor := issue(t, stranger, "controller.bank.example", asServer)
	renewed := issueFor(t, nil, "root", w.root.key, func(c *x509.Certificate) { asCA(c); c.NotAfter = c.NotAfter.Add(day) })
	crossSigned := issueFor(t, stranger, "root", w.root.key, asCA)
	server := trust.Options{Usages: []trust.Usage{trust.ServerAuth}, HostName: "controller.bank.example"}
	pin := keyID(t, w.root)
	for _, c := range []struct {
		name   string
		now    time.Time
		chain  []*x509.Certificate
		pin    pki.KeyID
		want   trust.Options
		reason trust.Reason // zero: accepted
		says   string
	}{
		{"pinned root", noon, chainOf(w.controller, w.issuing, w.root), pin, server, 0, ""},
		{"pinned root, renewed with its key", noon, chainOf(w.controller, w.issuing, renewed), pin, server, 0, ""},
		{"no root", noon, chainOf(w.controller, w.issuing), pin, server, trust.ReasonUnknownIssuer, "does not send its root"},
		{"other root", noon, chainOf(impostor, stranger), pin, server, trust.ReasonUnknownIssuer, pin.String()},
		{"impostor that sends the pinned root along", noon, chainOf(impostor, stranger, w.root), pin, server, trust.ReasonUnknownIssuer, "does not lead to a root"},
		{"pinned key in a certificate of another", noon, chainOf(w.controller, w.issuing, crossSigned), pin, server, trust.ReasonUnknownIssuer, "is not a root"},
		{"pin of the issuing CA", noon, chainOf(w.controller, w.issuing, w.root), keyID(t, w.issuing), server, trust.ReasonUnknownIssuer, "no root"},
		{"pin of the server", noon, chainOf(w.controller, w.issuing, w.root), keyID(t, w.controller), server, trust.ReasonUnknownIssuer, "no root"},
		{"zero pin", noon, chainOf(w.controller, w.issuing, w.root), pki.KeyID{}, server, trust.ReasonUnknownIssuer, "no root"},
		{"machine as server", noon, chainOf(w.node, w.issuing, w.root), pin, server, trust.ReasonWrongUsage, ""},
		{"other name", noon, chainOf(w.controller, w.issuing, w.root), pin, trust.Options{Usages: server.Usages, HostName: "x.bank.example"}, trust.ReasonNameMismatch, ""},
		{"clock a year early", noon.AddDate(-1, 0, 0), chainOf(w.controller, w.issuing, w.root), pin, server, trust.ReasonNotYetValid, "this clock says 2025-11-21"},
		{"no certificate", noon, nil, pin, server, trust.ReasonLimit, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			verdict, bundle, err := trust.PinnedVerify(c.now, c.chain, c.pin, c.want)
			if reason, _ := trust.ReasonOf(err); reason != c.reason || c.reason == 0 && err != nil {
				t.Fatalf("error %v, want %v", err, c.reason)
			}
			if err != nil {
				if !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %q does not say %q", err, c.says)
				}
				if !bundle.IsZero() || verdict.Leaf != nil {
					t.Error("a refusal comes with a bundle or a verdict")
				}
				return
			}
			if len(bundle.Roots()) != 1 || verdict.Leaf != w.controller.cert {
				t.Errorf("got a bundle of %d roots and the leaf %v", len(bundle.Roots()), verdict.Leaf.Subject)
			}
		})
	}
}

func TestTLSPinned(t *testing.T) {
	w := newWorld(t)
	w.client.VerifyConnection = trust.TLSVerifyPinned(keyID(t, w.root), func() time.Time { return noon },
		trust.Options{Usages: []trust.Usage{trust.ServerAuth}, HostName: "controller.bank.example"})
	if serverErr, clientErr, _ := handshake(t, w.server, w.client); serverErr != nil || clientErr != nil {
		t.Fatalf("server %v, client %v, want both content", serverErr, clientErr)
	}
	w.client.VerifyConnection = trust.TLSVerifyPinned(keyID(t, w.node), func() time.Time { return noon },
		trust.Options{Usages: []trust.Usage{trust.ServerAuth}})
	_, clientErr, _ := handshake(t, w.server, w.client)
	if reason, _ := trust.ReasonOf(clientErr); reason != trust.ReasonUnknownIssuer {
		t.Errorf("with another pin the client says %v, want an unknown issuer", clientErr)
	}
}
