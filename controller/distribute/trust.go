package distribute

import (
	"bytes"
	"encoding/hex"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/bailiwick-net/bailiwick/pki/trust"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// renewalPace is the time for each node that renews because another CA issues now: the controller takes several times as
// many, and has other work.
const renewalPace = 10 * time.Millisecond

// maxIssuer bounds a key identifier, in octets.
const maxIssuer = 64

// nameIssuer puts into the settings which CA issues now, and how fast to follow it.
func (s *session) nameIssuer(settings *nodev1.Settings) {
	if s.server.config.Issuer == nil {
		return
	}
	issuer := s.server.config.Issuer()
	s.sentIssuer = issuer
	if bytes.Equal(issuer, s.issuer) {
		return
	}
	s.server.table.Lock()
	n := len(s.server.table.nodes)
	s.server.table.Unlock()
	settings.Issuer, settings.RenewWithin = issuer, durationpb.New(time.Duration(n)*renewalPace)
}

// followIssuer tells the node when another CA issues than the settings named.
func (s *session) followIssuer() error {
	if s.server.config.Issuer == nil || bytes.Equal(s.server.config.Issuer(), s.sentIssuer) {
		return nil
	}
	return s.sendSettings(0)
}

// trusts notes which trust bundle the node holds.
func (s *session) trusts(digest []byte) {
	if len(digest) != len(trust.Digest{}) {
		return
	}
	held := hex.EncodeToString(digest)
	s.server.update(s.machine, func(n *node) { n.record.Trust = held })
}

// acknowledgeTrust hears what became of a trust bundle.
func (s *session) acknowledgeTrust(a *nodev1.TrustAcknowledgement) error {
	if len(a.GetDigest()) != len(trust.Digest{}) {
		return status.Errorf(codes.InvalidArgument, "a trust bundle is acknowledged with a digest of %d octets, wanted %d", len(a.GetDigest()), len(trust.Digest{}))
	}
	if len(a.GetError()) > maxError {
		return status.Errorf(codes.InvalidArgument, "error in the acknowledgement is longer than %d octets", maxError)
	}
	if a.GetError() != "" {
		s.server.config.Log.Error("node refused the trust bundle and keeps the one before", "machine", s.name, "error", a.GetError())
	}
	s.trusts(a.GetDigest())
	return nil
}

// believed refuses a session whose certificate the present bundle does not vouch for any more: the CA that issued it was
// retired, in an emergency because others know its key, and whoever has it must not go on hearing policies and secrets.
func (s *session) believed(bundle trust.Bundle) error {
	if len(s.path) == 0 || bundle.Digest() == s.believedBy {
		return nil
	}
	if _, err := bundle.Verify(s.server.config.Now(), s.path[:len(s.path)-1], trust.Options{Usages: []trust.Usage{trust.ClientAuth}}); err != nil {
		return status.Errorf(codes.Unauthenticated, "the session of %s ends: %v; connect with a certificate of the present CA, or join the machine again with a token", s.name, err)
	}
	s.believedBy = bundle.Digest()
	return nil
}
