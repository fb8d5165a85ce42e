package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/secrets"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/preshared"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// SetSecret implements adminv1.SecretServiceServer.
func (s *Server) SetSecret(ctx context.Context, r *adminv1.SetSecretRequest) (*adminv1.SetSecretResponse, error) {
	defer clear(r.GetValue())
	kind, err := preshared.ParseKind(cmp.Or(r.GetKind(), preshared.PSK.String()))
	if err != nil {
		return nil, refuse(err)
	}
	key, err := preshared.ParseKey(r.GetValue(), kind)
	if err != nil {
		return nil, refuse(err)
	}
	defer key.Wipe()
	outcome, secret, err := s.config.Secrets.Set(ctx, r.GetName(), kind, key, r.GetOverlap().AsDuration(), actor(ctx).Name)
	if err != nil {
		return nil, refuse(err)
	}
	response := &adminv1.SetSecretResponse{Outcome: map[secrets.Outcome]string{
		secrets.Created: "created", secrets.Replaced: "replaced", secrets.Unchanged: "unchanged",
	}[outcome]}
	if outcome != secrets.Unchanged {
		s.config.Log.Info("secret written", "secret", secret.Name, "kind", secret.Kind, "by", secret.By, "outcome", response.GetOutcome())
	}
	all, err := s.describeSecrets(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	for _, d := range all {
		if d.GetName() == secret.Name && d.GetKind() == secret.Kind.String() {
			response.Secret = d
		}
	}
	return response, nil
}

// ListSecrets implements adminv1.SecretServiceServer.
func (s *Server) ListSecrets(ctx context.Context, _ *adminv1.ListSecretsRequest) (*adminv1.ListSecretsResponse, error) {
	if err := s.config.Secrets.Read(ctx); err != nil {
		return nil, refuse(err)
	}
	all, err := s.describeSecrets(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	return &adminv1.ListSecretsResponse{Secrets: all}, nil
}

// describeSecrets describes what is kept, and what policies name without it being kept.
func (s *Server) describeSecrets(ctx context.Context) ([]*adminv1.Secret, error) {
	c, err := s.catalogue(ctx)
	if err != nil {
		return nil, err
	}
	var machines map[preshared.Use]int
	if table := s.config.Resolver.Table(); table != nil {
		machines = table.SecretMachines()
	}
	users := c.with(nil).SecretUsers()
	var out []*adminv1.Secret
	for _, secret := range s.config.Secrets.List() {
		use := preshared.Use{Name: secret.Name, Kind: secret.Kind}
		d := &adminv1.Secret{
			Name: secret.Name, Kind: secret.Kind.String(), Kept: true, Changed: stamp(secret.Changed), ChangedBy: secret.By,
			Machines: uint32(machines[use]), Policies: users[use],
		}
		if s.config.Now().Before(secret.Until) {
			d.PreviousUntil = stamp(secret.Until)
		}
		if secret.Problem != nil {
			d.Problem = secret.Problem.Error()
		}
		delete(users, use)
		out = append(out, d)
	}
	for use, names := range users {
		d := &adminv1.Secret{
			Name: use.Name, Kind: use.Kind.String(), Machines: uint32(machines[use]), Policies: names,
			Problem: "not kept here: machines need a file for it, or set it",
		}
		if other, ok := s.config.Secrets.Get(use.Name); ok {
			d.Problem = fmt.Sprintf("policies use it as a %s, but the one that is kept is a %s, which no machine gets for that", use.Kind, other.Kind)
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b *adminv1.Secret) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetKind(), b.GetKind()))
	})
	return out, nil
}

// DeleteSecret implements adminv1.SecretServiceServer. A secret that nobody can open any more may go although policies
// refer to it: that is the way out when the key of the secrets is lost.
func (s *Server) DeleteSecret(ctx context.Context, r *adminv1.DeleteSecretRequest) (*adminv1.DeleteSecretResponse, error) {
	for range attempts {
		c, err := s.catalogue(ctx)
		if err != nil {
			return nil, refuse(err)
		}
		if err := s.config.Secrets.Read(ctx); err != nil {
			return nil, refuse(err)
		}
		if secret, ok := s.config.Secrets.Get(r.GetName()); ok && secret.Problem == nil {
			if users := secretUsers(c.with(nil), secret.Name); len(users) > 0 {
				return nil, status.Errorf(codes.FailedPrecondition, "secret %q is used by %s; change that first", secret.Name, strings.Join(users, ", "))
			}
		}
		err = s.config.Secrets.Delete(ctx, r.GetName(), c.stored.Revision)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, refuse(err)
		}
		s.config.Log.Info("secret deleted", "secret", r.GetName(), "by", actor(ctx).Name)
		return &adminv1.DeleteSecretResponse{}, nil
	}
	return nil, status.Error(codes.Aborted, "others keep changing documents or secrets; try again")
}

// secretUsers names the policies that refer to a secret, as whatever.
func secretUsers(docs policies.Documents, name string) []string {
	var users []string
	for use, names := range docs.SecretUsers() {
		if use.Name == name {
			for _, n := range names {
				users = append(users, fmt.Sprintf("Policy %q", n))
			}
		}
	}
	slices.Sort(users)
	return slices.Compact(users)
}

// codeSecret is the code of findings about keys that the controller does not keep.
const codeSecret policies.Code = "secret-not-kept"

// unkeptSecrets warns of policies that name keys which are not kept here, or kept for something else: their machines need
// files.
func (s *Server) unkeptSecrets(docs policies.Documents) []policies.Finding {
	var out []policies.Finding
	for use, names := range docs.SecretUsers() {
		kept, ok := s.config.Secrets.Get(use.Name)
		if ok && kept.Kind == use.Kind {
			continue
		}
		for _, name := range names {
			p, _ := docs.Policy(name)
			out = append(out, policies.Finding{
				Severity: policies.Warning, Code: codeSecret, At: p.At, Object: object(p),
				Message: fmt.Sprintf("names the %s %q, which is not kept here; set it with bailiwick secret set %s --kind %s, or give each machine a file", use.Kind, use.Name, use.Name, use.Kind),
			})
		}
	}
	slices.SortFunc(out, func(a, b policies.Finding) int { return strings.Compare(a.Object+a.Message, b.Object+b.Message) })
	return out
}
