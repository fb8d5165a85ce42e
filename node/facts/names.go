package facts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// nameInterval is the time between two lookups of a name that answers.
	nameInterval = time.Minute
	// nameTimeout bounds one lookup.
	nameTimeout = 10 * time.Second
	// firstNameRetry is the wait after the first failure; it doubles up to nameInterval.
	firstNameRetry = 5 * time.Second
	// maxNameAddresses bounds the addresses of one name.
	maxNameAddresses = 64
	// maxNameLookups bounds the lookups at a time.
	maxNameLookups = 8
)

// Lookup finds all addresses of a DNS name. An answer without an address is an error.
type Lookup func(ctx context.Context, name string) ([]netip.Addr, error)

// Resolve asks the resolver that resolv.conf(5) and hosts(5) configure, for A and for AAAA. When one of the two cannot be
// asked, the other is not the answer: half of the addresses would be missing.
func Resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	return resolve(ctx, &net.Resolver{PreferGo: true}, name)
}

func resolve(ctx context.Context, resolver *net.Resolver, name string) ([]netip.Addr, error) {
	var out []netip.Addr
	var none error
	for _, network := range []string{"ip4", "ip6"} {
		found, err := resolver.LookupNetIP(ctx, network, name+".") // the final dot keeps search lists out
		if missing, ok := errors.AsType[*net.DNSError](err); ok && missing.IsNotFound {
			none = err
			continue
		}
		if _, ok := errors.AsType[*net.AddrError](err); ok { // hosts(5) has the name with addresses of the other family alone
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	if len(out) == 0 {
		return nil, none
	}
	return out, nil
}

// Names keeps the addresses of the DNS names of policies. A failed lookup never takes an answer away. Its methods may be
// called from any goroutine.
type Names struct {
	lookup Lookup
	wake   chan struct{}

	mu     sync.Mutex
	wanted map[string]*name
	tried  chan struct{} // closed and made anew after each round of lookups
}

// name is what is known of one name.
type name struct {
	addresses []netip.Addr // nil while there was no answer
	tried     bool
	failure   string // of the latest lookup; empty when it answered
	since     time.Time
	next      time.Time
	wait      time.Duration
}

// NewNames prepares the lookups; Run makes them.
func NewNames(lookup Lookup) *Names {
	return &Names{lookup: lookup, wake: make(chan struct{}, 1), wanted: map[string]*name{}, tried: make(chan struct{})}
}

// Want sets which names are kept; the answers of others are forgotten.
func (n *Names) Want(names []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	keep := make(map[string]*name, len(names))
	for _, text := range names {
		if keep[text] = n.wanted[text]; keep[text] == nil {
			keep[text] = &name{}
		}
	}
	n.wanted = keep
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Seed gives answers of an earlier process to names that are wanted and have none.
func (n *Names) Seed(answers map[string][]netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for text, addresses := range answers {
		if known := n.wanted[text]; known != nil && known.addresses == nil && len(addresses) > 0 {
			known.addresses = normal(addresses)
		}
	}
}

// Await waits until each name that is wanted has an answer or was tried, or until ctx ends.
func (n *Names) Await(ctx context.Context) {
	for {
		n.mu.Lock()
		tried, waiting := n.tried, false
		for _, known := range n.wanted {
			waiting = waiting || known.addresses == nil && !known.tried
		}
		n.mu.Unlock()
		if !waiting {
			return
		}
		select {
		case <-tried:
		case <-ctx.Done():
			return
		}
	}
}

// Answers returns the latest answer for each name that ever had one.
func (n *Names) Answers() map[string][]netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[string][]netip.Addr{}
	for text, known := range n.wanted {
		if known.addresses != nil {
			out[text] = slices.Clone(known.addresses)
		}
	}
	return out
}

// Problems tells in words which names cannot be resolved, in the order of the names.
func (n *Names) Problems() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, text := range slices.Sorted(maps.Keys(n.wanted)) {
		known := n.wanted[text]
		switch {
		case known.failure == "":
		case known.addresses == nil:
			out = append(out, fmt.Sprintf("dns:%s of the policy was never resolved: %s", text, known.failure))
		default:
			out = append(out, fmt.Sprintf("dns:%s of the policy cannot be resolved since %s, its last addresses stay: %s", text, known.since.UTC().Format(time.RFC3339), known.failure))
		}
	}
	return out
}

// Run looks names up, again at an interval, and calls changed when an answer is another one, until ctx ends.
func (n *Names) Run(ctx context.Context, changed func()) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.wake:
		case <-timer.C:
		}
		next, differs := n.round(ctx)
		if differs {
			changed()
		}
		timer.Reset(next)
	}
}

// round looks up what is due and returns the time until something is again.
func (n *Names) round(ctx context.Context) (next time.Duration, differs bool) {
	type answer struct {
		name      string
		addresses []netip.Addr
		err       error
	}
	n.mu.Lock()
	now := time.Now()
	var due []string
	for text, known := range n.wanted {
		if !now.Before(known.next) {
			due = append(due, text)
		}
	}
	n.mu.Unlock()
	answers := make(chan answer, len(due))
	slots := make(chan struct{}, maxNameLookups)
	for _, text := range due {
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			bounded, cancel := context.WithTimeout(ctx, nameTimeout)
			defer cancel()
			addresses, err := n.lookup(bounded, text)
			answers <- answer{text, addresses, err}
		}()
	}
	for range due {
		a := <-answers
		n.mu.Lock()
		if known := n.wanted[a.name]; known != nil && ctx.Err() == nil {
			differs = known.take(time.Now(), a.addresses, a.err) || differs
		}
		n.mu.Unlock()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.tried)
	n.tried = make(chan struct{})
	next = nameInterval
	for _, known := range n.wanted {
		next = min(next, time.Until(known.next))
	}
	return max(next, 0), differs
}

// take notes the outcome of a lookup and reports whether the addresses are others than before.
func (k *name) take(now time.Time, addresses []netip.Addr, err error) bool {
	k.tried = true
	addresses = normal(addresses)
	switch {
	case err != nil:
	case len(addresses) == 0:
		err = errors.New("it has no address")
	case len(addresses) > maxNameAddresses:
		err = fmt.Errorf("it has %d addresses, more than %d", len(addresses), maxNameAddresses)
	}
	if err != nil {
		if k.failure == "" {
			k.since = now
		}
		k.failure = cause(err)
		k.wait = min(max(2*k.wait, firstNameRetry), nameInterval)
		k.next = now.Add(k.wait)
		return false
	}
	k.failure, k.wait, k.next = "", 0, now.Add(nameInterval)
	if slices.Equal(k.addresses, addresses) {
		return false
	}
	k.addresses = addresses
	return true
}

// cause is the error without what differs from one lookup to the next, such as ports.
func cause(err error) string {
	if failed, ok := errors.AsType[*net.DNSError](err); ok {
		switch {
		case failed.IsNotFound:
			return "the name does not exist or has no address"
		case failed.IsTimeout:
			return "the resolver does not answer"
		}
		return "the resolver failed"
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "the resolver does not answer"
	}
	return err.Error()
}

func normal(addresses []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, len(addresses))
	for i, a := range addresses {
		out[i] = a.Unmap().WithZone("")
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
