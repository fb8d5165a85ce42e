package distribute

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/bailiwick-net/bailiwick/controller/resolver"
	"github.com/bailiwick-net/bailiwick/controller/secrets"
	"github.com/bailiwick-net/bailiwick/policies/preshared"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// Secrets gives the values of preshared keys.
type Secrets interface {
	Values(uses []preshared.Use) []secrets.Value
}

// sendSecrets tells the node the secrets that the policy assigned to it names, and no others, unless this session has told
// it so. Whose policy names none is told that as well, so that it forgets what it had.
func (s *session) sendSecrets(a resolver.Assignment) error {
	if s.server.config.Secrets == nil || a.Revision == 0 {
		return nil
	}
	values := s.server.config.Secrets.Values(s.server.config.Assignments.Secrets(a.Digest))
	var told strings.Builder
	message := &nodev1.Secrets{}
	for _, v := range values {
		fmt.Fprintf(&told, "%s %s %d %v;", v.Name, v.Kind, v.Revision, v.Previous.Len() > 0)
		secret := &nodev1.Secret{Name: v.Name, Kind: v.Kind.String(), Value: v.Current.Expose(), Changed: timestamppb.New(v.Changed)}
		if v.Previous.Len() > 0 {
			secret.Previous, secret.PreviousUntil = v.Previous.Expose(), timestamppb.New(v.Until)
		}
		message.Secrets = append(message.Secrets, secret)
	}
	if s.toldSecrets && told.String() == s.sentSecrets {
		return nil
	}
	if err := s.send(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Secrets{Secrets: message}}); err != nil {
		return err
	}
	s.toldSecrets, s.sentSecrets = true, told.String()
	return nil
}

// NotifySecrets wakes all sessions because secrets changed; each tells its node what is new for it.
func (s *Server) NotifySecrets() { s.NotifyTrust() }
