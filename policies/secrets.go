package policies

import (
	"slices"

	"github.com/bailiwick-net/bailiwick/policies/preshared"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// SecretUsers lists the policies that name each secret, whether they are linked or not, by name.
func (d Documents) SecretUsers() map[preshared.Use][]string {
	users := map[preshared.Use][]string{}
	for _, p := range d.Policies {
		named := spd.Policy{DefaultResponse: spd.DefaultResponse{Auth: p.DefaultResponse.Authentication}}
		for _, r := range p.Rules {
			named.Rules = append(named.Rules, spd.Rule{Auth: r.Authentication})
		}
		for _, u := range preshared.Uses(named) {
			users[u] = append(users[u], p.Name)
		}
	}
	for _, names := range users {
		slices.Sort(names)
	}
	return users
}
