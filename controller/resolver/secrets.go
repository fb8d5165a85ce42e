package resolver

import (
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/preshared"
)

// Secrets returns the secrets that the bundle of an assignment names; none for a bundle that no machine has.
func (r *Resolver) Secrets(digest compile.Digest) []preshared.Use {
	t := r.table.Load()
	if t == nil {
		return nil
	}
	return t.secrets[digest]
}

// SecretMachines counts the admitted machines whose policy names each secret.
func (t *Table) SecretMachines() map[preshared.Use]int {
	machines := map[string]int{}
	uses := map[string][]preshared.Use{}
	for a := range t.All() {
		if a.Revision == 0 || !a.Standing.Admitted() {
			continue
		}
		bundle := a.Digest.String()
		machines[bundle]++
		uses[bundle] = t.secrets[a.Digest]
	}
	return preshared.Count(machines, func(bundle string) []preshared.Use { return uses[bundle] })
}
