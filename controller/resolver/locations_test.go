package resolver

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
)

// TestLocateThatIsGivenUp: a node that gives up before its new place counts is not taken for one whose place counts when it
// comes again.
func TestLocateThatIsGivenUp(t *testing.T) {
	site := policies.Site{Meta: policies.Meta{Name: "Vienna"}, Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	docs := documents(link(predefined.Server, site.DN().String()))
	docs.parsed.Sites = []policies.Site{site}
	of := view(t, map[string]int{"a": 1})
	r := New(Config{View: func() *mirror.View { return of }})
	r.table.Store(evaluate(of, docs, r.locations.of, nil, nil))

	ctx, giveUp := context.WithCancel(t.Context())
	giveUp()
	for _, address := range []string{"10.1.0.1", "10.1.0.1", "192.0.2.1", "10.1.0.1"} {
		// Nobody works, so that every place waits for ever.
		if err := r.Locate(ctx, id("a", 0), netip.MustParseAddr(address)); !errors.Is(err, context.Canceled) {
			t.Errorf("from %s: error %v, wanted to wait", address, err)
		}
	}
}
