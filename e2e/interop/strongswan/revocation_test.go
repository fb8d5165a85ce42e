package strongswan

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// variant is a machine's certificate of the CA with changes that the CA would not make.
func variant(t *testing.T, ca *catest.CA, dnsName string, edit func(*x509.Certificate)) charon.Certificate {
	t.Helper()
	cert := pair.Machine(t, ca, dnsName)
	template, err := x509.ParseCertificate(cert.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	edit(template)
	cert.Chain[0], err = x509.CreateCertificate(rand.Reader, template, ca.Authority.Issuing, cert.Key.Public(), ca.Authority.IssuingKey)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// denies lets the node have heard of its controller, at a time, that certificates are revoked.
func (p peers) denies(ca *catest.CA, heard time.Time, revoked ...charon.Certificate) {
	p.T.Helper()
	content, err := pair.Denials(p.T, ca, revoked...).Append(nil)
	if err != nil {
		p.T.Fatal(err)
	}
	file, err := json.Marshal(map[string]any{"heard": heard, "content": content})
	if err != nil {
		p.T.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.Dir, "state", "denials.json"), file, 0o600); err != nil {
		p.T.Fatal(err)
	}
}

// lists are the revocation lists of the CA as files of strongSwan: that of its issuing key revokes certificates, that of
// its root none.
func lists(t testing.TB, ca *catest.CA, number int64, revoked ...charon.Certificate) map[string][]byte {
	t.Helper()
	template := x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	root, err := x509.CreateRevocationList(rand.Reader, &template, ca.Authority.Root, ca.Authority.RootKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, cert := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: pair.Serial(t, cert), RevocationTime: time.Now().Add(-time.Minute)})
	}
	issuing, err := x509.CreateRevocationList(rand.Reader, &template, ca.Authority.Issuing, ca.Authority.IssuingKey)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"x509crl/root.crl": root, "x509crl/issuing.crl": issuing}
}

// asks lets strongSwan want to know whether the node is revoked: strictly, or where it can find out.
func asks(how string) func(*charon.Config) {
	return ends(nil, map[string]string{"revocation": how})
}

// files gives strongSwan further files.
func files(content map[string][]byte) func(*charon.Config) {
	return func(c *charon.Config) { c.Files = content }
}

// joined starts both with certificates of one CA.
func (p peers) joined(ca *catest.CA, node, peer charon.Certificate, policy pair.Policy, change ...func(*charon.Config)) {
	p.T.Helper()
	p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP, append([]func(*charon.Config){pair.Authenticated(peer, ca, pair.PeerName)}, change...)...))
	p.JoinWith(node, ca.Bundle())
	policy.Authenticate = pair.ByCertificate
	p.StartNode(policy)
}

// endsAs requires that a side brings a Child SA up that works, or that it is refused for one of the reasons.
func (p peers) endsAs(initiator pair.Side, refused []ike.Reason) {
	p.T.Helper()
	if refused == nil {
		p.Carries(initiator)
		return
	}
	p.Quiet()
	p.Refused(initiator)
	p.Fails(pair.PeerOuter, refused...)
	if children := p.Ours().Children; len(children) != 0 {
		p.T.Errorf("the node has %+v, want no child", children)
	}
}

// TestRevocationLists has either side revoke the other. The node hears of revocations from its controller and asks nobody
// else: a list that the peer's certificate names is not fetched (RFC 5280 4.2.1.13). strongSwan has lists as files, and
// wants them or does without.
func TestRevocationLists(t *testing.T) {
	t.Parallel()
	shows(t, 12)
	now := time.Now()
	for _, c := range []struct {
		name       string
		policy     string // further fields of keyExchange
		heard      time.Time
		denied     bool // the node has heard that the peer is revoked
		lists      int  // of strongSwan: none, one that revokes nobody, one that revokes the node
		revocation string
		want       []ike.Reason // nil: it comes up
	}{
		{name: "nobody is revoked", heard: now, policy: "  revocation: strict\n", lists: 1, revocation: "strict"},
		{name: "node has heard of the peer", heard: now, denied: true, revocation: "ifuri", want: []ike.Reason{ike.ReasonCertRevoked}},
		{name: "node has heard nothing and is strict", policy: "  revocation: strict\n", revocation: "ifuri", want: []ike.Reason{ike.ReasonStandingUnknown}},
		{name: "peer has a list with the node", heard: now, lists: 2, revocation: "strict", want: []ike.Reason{ike.ReasonAuthRefused, ike.ReasonPeerRefused}},
		{name: "peer has no list and is strict", heard: now, revocation: "strict", want: []ike.Reason{ike.ReasonAuthRefused, ike.ReasonPeerRefused}},
		{name: "peer has no list and is not", heard: now, revocation: "ifuri"},
	} {
		for _, initiator := range pair.Sides {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				ca := catest.New(t)
				node := pair.Machine(t, ca, pair.NodeName)
				// Whoever asked there would send TCP in clear, and be told that the peer is revoked.
				peer := variant(t, ca, pair.PeerName, func(cert *x509.Certificate) {
					cert.CRLDistributionPoints = []string{"http://" + net.JoinHostPort(pair.PeerOuter.String(), "8080") + "/issuing.crl"}
				})
				change := []func(*charon.Config){asks(c.revocation)}
				switch c.lists {
				case 1:
					change = append(change, files(lists(t, ca, 1)))
				case 2:
					change = append(change, files(lists(t, ca, 1, node)))
				}
				unasked := p.serve(p.Peer, net.JoinHostPort(pair.PeerOuter.String(), "8080"), func([]byte) []byte { return lists(t, ca, 2, peer)["x509crl/issuing.crl"] })
				p.JoinWith(node, ca.Bundle())
				var revoked []charon.Certificate
				if c.denied {
					revoked = append(revoked, peer)
				}
				if !c.heard.IsZero() {
					p.denies(ca, c.heard, revoked...)
				}
				p.joined(ca, node, peer, pair.Policy{KeyExchange: c.policy}, change...)
				p.endsAs(initiator, c.want)
				if n := unasked.Load(); n != 0 {
					t.Errorf("the list that the peer's certificate names was fetched %d times", n)
				}
			})
		}
	}
}

// serve answers every request over HTTP at an address of a host, and returns how many there were.
func (p peers) serve(host interface{ Do(func() error) error }, address string, answer func(request []byte) []byte) *atomic.Int32 {
	p.T.Helper()
	var requests atomic.Int32
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
		if content := answer(body); err == nil && content != nil {
			w.Header().Set("Content-Type", "application/ocsp-response")
			_, _ = w.Write(content)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})}
	err := host.Do(func() error {
		listener, err := (&net.ListenConfig{}).Listen(p.Ctx, "tcp", address)
		if err != nil {
			return err
		}
		go func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				p.T.Errorf("serve at %s: %v", address, err)
			}
		}()
		return nil
	})
	if err != nil {
		p.T.Fatal(err)
	}
	context.AfterFunc(p.Ctx, func() { _ = server.Close() })
	return &requests
}

// TestOCSP has strongSwan ask a responder about the node: what it says decides, and where it says
// nothing, the configuration (RFC 6960). The responder that the peer's certificate names is not asked by the node.
func TestOCSP(t *testing.T) {
	t.Parallel()
	shows(t, 13)
	const responder = "127.0.0.1:8080"
	for _, c := range []struct {
		name       string
		status     int // -1: it has none to tell
		revocation string
		want       []ike.Reason // nil: it comes up
	}{
		{"good", ocsp.Good, "strict", nil},
		{"revoked", ocsp.Revoked, "ifuri", []ike.Reason{ike.ReasonAuthRefused, ike.ReasonPeerRefused}},
		{"unavailable-strict", -1, "strict", []ike.Reason{ike.ReasonAuthRefused, ike.ReasonPeerRefused}},
		{"unavailable-relaxed", -1, "relaxed", nil},
	} {
		for _, initiator := range pair.Sides {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				ca := catest.New(t)
				node := pair.Machine(t, ca, pair.NodeName)
				elsewhere := net.JoinHostPort(pair.PeerOuter.String(), "8081")
				peer := variant(t, ca, pair.PeerName, func(cert *x509.Certificate) { cert.OCSPServer = []string{"http://" + elsewhere} })
				asked := p.serve(p.Peer, responder, func(request []byte) []byte {
					if c.status < 0 {
						return nil
					}
					return status(t, ca, request, c.status)
				})
				unasked := p.serve(p.Peer, elsewhere, func([]byte) []byte { return nil })
				authority := "authorities {\n issuing {\n cacert = peer-issuer1.pem\n ocsp_uris = http://" + responder + "\n }\n}\n"
				p.joined(ca, node, peer, pair.Policy{}, asks(c.revocation), load("curl"), sections("", authority),
					files(map[string][]byte{"x509crl/root.crl": lists(t, ca, 1)["x509crl/root.crl"]})) // about the issuer, as the responder answers for its own
				p.endsAs(initiator, c.want)
				if asked.Load() == 0 || unasked.Load() != 0 {
					t.Errorf("strongSwan asked its responder %d times, the node asked that of the peer %d times; want some and none", asked.Load(), unasked.Load())
				}
			})
		}
	}
}

// status is the signed answer of a responder.
func status(t testing.TB, ca *catest.CA, request []byte, status int) []byte {
	t.Helper()
	asked, err := ocsp.ParseRequest(request)
	if err != nil {
		t.Errorf("an OCSP request of %d octets: %v", len(request), err)
		return nil
	}
	issuer, key := ca.Authority.Issuing, ca.Authority.IssuingKey
	response, err := ocsp.CreateResponse(issuer, issuer, ocsp.Response{
		Status: status, SerialNumber: asked.SerialNumber, IssuerHash: asked.HashAlgorithm,
		ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour), RevokedAt: time.Now().Add(-time.Hour),
	}, key)
	if err != nil {
		t.Errorf("an OCSP response: %v", err)
	}
	return response
}

// TestRevokedAtReauthentication revokes the node at strongSwan while both talk, which finds out when it authenticates again:
// the new IKE SA is refused, and what the old one carried ends.
func TestRevokedAtReauthentication(t *testing.T) {
	t.Parallel()
	shows(t, 39)
	for _, makeBeforeBreak := range []string{"yes", "no"} {
		t.Run("make-before-break-"+makeBeforeBreak, func(t *testing.T) {
			p := newPair(t)
			ca := catest.New(t)
			node := pair.Machine(t, ca, pair.NodeName)
			p.joined(ca, node, pair.Machine(t, ca, pair.PeerName), pair.Policy{}, asks("strict"), files(lists(t, ca, 1)), pair.Option("make_before_break", makeBeforeBreak))
			p.Carries(pair.FromPeer)
			p.Quiet()
			for name, content := range lists(t, ca, 2, node) {
				if err := os.WriteFile(filepath.Join(p.Dir, "charon", name), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			// What it has found out before it keeps, until the list that it was in runs out.
			for _, command := range [][]string{{"--load-creds", "--clear", "--noprompt"}, {"--flush-certs"}} {
				if _, err := p.Charon.Swanctl(p.Ctx, command...); err != nil {
					t.Fatal(err)
				}
			}
			p.reauthenticate()
			p.Logged("certificate was revoked") // make-before-break asks as late as when the old one has gone
			p.Until("neither has a child", func() (bool, error) {
				theirs, err := p.Charon.SAs(p.Ctx)
				return len(theirs) == 0 && len(p.Ours().Children) == 0, err
			})
		})
	}
}
