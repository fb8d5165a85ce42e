package enrollment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

var (
	// ErrRequestsClosed is wrapped where the configuration takes no requests without a token.
	ErrRequestsClosed = errors.New("this controller takes no requests without a join token")
	// ErrRequestDenied is wrapped when the request of a key was denied.
	ErrRequestDenied = errors.New("the request was denied")
	// ErrRequestMachine is wrapped when a request states no machine that may ask. It does not say why: a stranger learns
	// nothing of the directory but this.
	ErrRequestMachine = errors.New("no machine of that name may ask for a certificate")
	// ErrQueueFull is wrapped when no more requests can wait.
	ErrQueueFull = errors.New("too many requests are waiting")
	// ErrDecided is wrapped when a request that was decided already is decided again.
	ErrDecided = errors.New("the request was decided already")
	// ErrRequestName is wrapped when a text names no request, or more than one.
	ErrRequestName = errors.New("no such request")
)

// The bounds of the queue.
const (
	// MaxPending is how many requests wait at once. MaxPendingMachine is how many of one machine wait or were denied.
	MaxPending        = 1000
	MaxPendingMachine = 4
	// MaxRequests is how many there are at once, whatever became of them.
	MaxRequests = 100_000
	// DefaultRequestLifetime is how long a request waits, and how long an approved one is answered.
	DefaultRequestLifetime = 7 * 24 * time.Hour
)

// Rules say what becomes of requests that come without a token.
type Rules struct {
	// Accept takes such requests at all.
	Accept bool
	// Lifetime is how long a request waits; 0 means DefaultRequestLifetime.
	Lifetime time.Duration
	// Auto approves requests for machines below a container, or in a group, without asking anybody.
	Auto []Rule
}

func (r Rules) completed() Rules {
	if r.Lifetime == 0 {
		r.Lifetime = DefaultRequestLifetime
	}
	return r
}

// A Rule matches machines: exactly one of its fields is set.
type Rule struct {
	Container, Group directory.DN
}

// String names the rule in the record of an approval.
func (r Rule) String() string {
	if !r.Group.IsZero() {
		return "group " + r.Group.String()
	}
	return "container " + r.Container.String()
}

func (r Rule) matches(s *directory.Snapshot, m directory.Machine) bool {
	if !r.Group.IsZero() {
		return s.IsMember(m.DN, r.Group)
	}
	return m.DN.IsDescendantOf(r.Container)
}

// Requests is the store of requests.
type Requests interface {
	CreateJoinRequest(ctx context.Context, r store.JoinRequest) error
	JoinRequest(ctx context.Context, k pki.KeyID) (store.JoinRequest, error)
	JoinRequests(ctx context.Context) ([]store.JoinRequest, error)
	UpdateJoinRequest(ctx context.Context, r store.JoinRequest) error
	DeleteJoinRequest(ctx context.Context, r store.JoinRequest) error
}

// A queue remembers what the store holds, so that a stranger who asks again and again costs no reading. This controller is
// the only one that writes, and writes through here; after a failure the store is read anew.
type queue struct {
	mu sync.Mutex
	// known are all requests by key; nil before the first reading.
	known map[pki.KeyID]store.JoinRequest
}

// loadLocked reads the store where that was not done yet.
func (q *queue) loadLocked(ctx context.Context, from Requests) error {
	if q.known != nil {
		return nil
	}
	all, err := from.JoinRequests(ctx)
	if err != nil {
		return err
	}
	q.known = map[pki.KeyID]store.JoinRequest{}
	for _, r := range all {
		q.known[r.Key] = r
	}
	return nil
}

// dropLocked forgets everything if a writing failed: the store may hold another thing than what was read.
func (q *queue) dropLocked(err error) error {
	if err != nil {
		q.known = nil
	}
	return err
}

// A Submission is what became of a request so far: issued, or waiting.
type Submission struct {
	Request store.JoinRequest
	// Issued is the certificate; nil while the request waits.
	Issued *ca.Issued
}

// A Submitter is where a request came from, for whoever decides.
type Submitter struct {
	// Address is that of the caller, Via how it came: "node" or "est".
	Address, Via string
}

// Submit takes a request that nothing vouches for but its own signature, and answers it once it was approved. The same
// key asks again to learn what became of it. The error wraps ErrRequestDenied once somebody denied it.
func (d *Desk) Submit(ctx context.Context, csr []byte, from Submitter) (Submission, error) {
	if d.config.Requests == nil || !d.config.Rules.Accept {
		return Submission{}, ErrRequestsClosed
	}
	if err := d.strangers.take(d.config.Now(), struct{}{}, "whoever has neither token nor certificate"); err != nil {
		return Submission{}, err
	}
	request, err := enroll.ParseRequest(csr)
	if err != nil {
		return Submission{}, err
	}
	record, err := d.file(ctx, request, from)
	if err != nil {
		return Submission{}, err
	}
	switch record.State {
	case store.RequestPending:
		return Submission{Request: record}, nil
	case store.RequestDenied:
		return Submission{}, fmt.Errorf("request %s, by %s at %s%s: %w", record.Key.String()[:16], record.By, record.Decided.Format(time.RFC3339),
			because(record.Reason), ErrRequestDenied)
	case store.RequestApproved:
	}
	issued, err := d.authorize(ctx, &requestClaim{desk: d, record: record}, csr)
	if err != nil {
		return Submission{}, err
	}
	return Submission{Request: record, Issued: &issued}, nil
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ", because: " + reason
}

// fileTime bounds what the store may take to file a request.
const fileTime = 10 * time.Second

// file finds the record of a request, or makes it.
func (d *Desk) file(ctx context.Context, request enroll.Request, from Submitter) (store.JoinRequest, error) {
	now := d.config.Now().UTC()
	d.queue.mu.Lock()
	defer d.queue.mu.Unlock()
	// A stranger who hangs up must not have the queue forgotten, and read anew by whoever comes next.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fileTime)
	defer cancel()
	if err := d.queue.loadLocked(ctx, d.config.Requests); err != nil {
		return store.JoinRequest{}, err
	}
	if record, ok := d.queue.known[request.KeyID]; ok {
		if now.Before(record.NotAfter) {
			return record, nil
		}
		if err := d.queue.dropLocked(d.forgetLocked(ctx, record.Key)); err != nil {
			return store.JoinRequest{}, err
		}
	}
	m, id, err := d.named(request)
	if err != nil {
		return store.JoinRequest{}, err
	}
	if err := d.roomLocked(now, id.UUID()); err != nil {
		return store.JoinRequest{}, err
	}
	// What could not be issued in the end does not wait for anybody.
	if _, err := d.config.Authority.Prepare(now, d.config.Machine, request, id); err != nil {
		return store.JoinRequest{}, err
	}
	record := store.JoinRequest{
		Key: request.KeyID, Machine: id.UUID(), DNSName: id.DNSName(), MachineName: m.Name, MachineDN: m.DN.String(),
		From: from.Address, Via: from.Via, Created: now, NotAfter: now.Add(d.config.Rules.Lifetime), State: store.RequestPending,
	}
	if record.By, err = d.automatic(ctx, m, request.KeyID); err != nil {
		return store.JoinRequest{}, err
	}
	if record.By != "" {
		record.State, record.Decided = store.RequestApproved, now
	}
	if err := d.queue.dropLocked(d.config.Requests.CreateJoinRequest(ctx, record)); err != nil {
		return store.JoinRequest{}, err
	}
	d.queue.known[record.Key] = record
	d.config.Log.Info("request for a certificate", "request", record.Key.String()[:16], "machine", id, "state", string(record.State), "by", record.By)
	d.config.Log.Debug("request for a certificate came from", "request", record.Key.String()[:16], "address", from.Address, "via", from.Via)
	return record, nil
}

// named finds the machine whose name a request states, enabled and with names that a certificate can have.
func (d *Desk) named(request enroll.Request) (directory.Machine, pki.Identity, error) {
	snapshot := d.config.Snapshot()
	if snapshot == nil {
		return directory.Machine{}, pki.Identity{}, ErrNotReady
	}
	name := request.DNSName
	if stated, ok := request.Subject.(pki.Identity); ok {
		name = stated.DNSName()
	}
	refuse := func() (directory.Machine, pki.Identity, error) {
		return directory.Machine{}, pki.Identity{}, fmt.Errorf("request for %q: %w", name, ErrRequestMachine)
	}
	m, ok := machineCalled(snapshot, name)
	if !ok {
		return refuse()
	}
	id, err := Identity(d.config.TrustDomain, m)
	if err != nil || m.Disabled || enroll.Match(request, id) != nil {
		return refuse()
	}
	return m, id, nil
}

// machineCalled finds a machine by its DNS name, or the short name alone where the entry has no other.
func machineCalled(s *directory.Snapshot, name string) (directory.Machine, bool) {
	m, ok := s.MachineByName(name)
	if !ok {
		// A machine whose entry has no DNS name is called by its short name in the trust domain.
		label, _, _ := strings.Cut(name, ".")
		m, ok = s.MachineByName(label)
	}
	return m, ok
}

// roomLocked says whether one more request of a machine may wait.
func (d *Desk) roomLocked(now time.Time, machine pki.UUID) error {
	waiting, own := 0, 0
	for _, r := range d.queue.known {
		if !now.Before(r.NotAfter) {
			continue
		}
		if r.State == store.RequestPending {
			waiting++
		}
		// Denied ones take room as well until they end: else whoever is denied would ask with the next key.
		if r.Machine == machine && r.State != store.RequestApproved {
			own++
		}
	}
	switch {
	case waiting >= MaxPending:
		return fmt.Errorf("%d of them: %w", waiting, ErrQueueFull)
	case len(d.queue.known) >= MaxRequests:
		return fmt.Errorf("%d of them, with those that were decided: %w", len(d.queue.known), ErrQueueFull)
	case own >= MaxPendingMachine:
		return fmt.Errorf("%d of them for this machine: %w", own, ErrQueueFull)
	}
	return nil
}

// automatic returns the rule that approves a machine's request; "" where somebody has to look at it. No rule replaces a
// certificate that a machine holds: whoever knows a machine's name could take its place. Nor does one let a machine in again
// whose certificate was revoked, whenever that ended.
func (d *Desk) automatic(ctx context.Context, m directory.Machine, key pki.KeyID) (string, error) {
	snapshot := d.config.Snapshot()
	at := slices.IndexFunc(d.config.Rules.Auto, func(r Rule) bool { return r.matches(snapshot, m) })
	if at < 0 {
		return "", nil
	}
	switch held, err := d.config.Holdings.Holding(ctx, pki.UUID(m.UUID)); {
	case err == nil && held.Key != key && d.config.Now().Before(held.NotAfter):
		return "", nil
	case err == nil && d.config.Barred != nil && d.config.Barred(held) != "":
		d.config.Log.Warn("a request that a rule would approve waits for an administrator, because the machine's certificate was revoked",
			"machine", m.Name, "reason", d.config.Barred(held))
		return "", nil
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return "", err
	}
	return "rule: " + d.config.Rules.Auto[at].String(), nil
}

// A requestClaim is an approved request.
type requestClaim struct {
	desk   *Desk
	record store.JoinRequest
}

func (c *requestClaim) machine() pki.UUID { return c.record.Machine }

func (c *requestClaim) admits(ctx context.Context, request *enroll.Request, _ pki.Identity) error {
	if request.KeyID != c.record.Key {
		return fmt.Errorf("request %s was approved for another key: %w", c.record.Key.String()[:16], enroll.ErrRequest)
	}
	return c.desk.askedBefore(ctx, c.record.Machine, request.KeyID, c.record.Decided)
}

// spend has nothing to use up, because the approval is for this key alone and ends with the request; but it may have been
// taken back since.
func (c *requestClaim) spend(ctx context.Context, key pki.KeyID) error {
	q := &c.desk.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.loadLocked(ctx, c.desk.config.Requests); err != nil {
		return err
	}
	if r, ok := q.known[key]; !ok || r.State != store.RequestApproved {
		return fmt.Errorf("request %s is not approved any more: %w", key.String()[:16], ErrRequestDenied)
	}
	return nil
}

func (c *requestClaim) granted() time.Time { return c.record.Decided }

func (c *requestClaim) String() string {
	return "request " + c.record.Key.String()[:16] + " approved by " + c.record.By
}

// JoinRequests lists the requests that have not ended, in the order in which they came.
func (d *Desk) JoinRequests(ctx context.Context) ([]store.JoinRequest, error) {
	if d.config.Requests == nil {
		return nil, nil
	}
	d.queue.mu.Lock()
	defer d.queue.mu.Unlock()
	if err := d.queue.loadLocked(ctx, d.config.Requests); err != nil {
		return nil, err
	}
	now := d.config.Now()
	var out []store.JoinRequest
	for _, r := range d.queue.known {
		if now.Before(r.NotAfter) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b store.JoinRequest) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return slices.Compare(a.Key[:], b.Key[:])
	})
	return out, nil
}

// FindRequest finds a request by its key's first characters, eight or more, if they are those of one alone.
func (d *Desk) FindRequest(ctx context.Context, text string) (store.JoinRequest, error) {
	all, err := d.JoinRequests(ctx)
	if err != nil {
		return store.JoinRequest{}, err
	}
	text = strings.ToLower(strings.TrimSpace(text))
	const least = 8
	if len(text) < least {
		return store.JoinRequest{}, fmt.Errorf("%q has less than the first %d characters of a request: %w", text, least, ErrRequestName)
	}
	var found []store.JoinRequest
	for _, r := range all {
		if strings.HasPrefix(r.Key.String(), text) {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		return store.JoinRequest{}, fmt.Errorf("%d requests begin with %q: %w", len(found), text, ErrRequestName)
	}
	return found[0], nil
}

// Approve lets the key of a pending request have a certificate, if its machine still may have one.
func (d *Desk) Approve(ctx context.Context, key pki.KeyID, by string) (store.JoinRequest, error) {
	return d.decide(ctx, key, store.RequestApproved, by, "")
}

// Deny refuses a request for good. One that was approved can be denied while no certificate came of it.
func (d *Desk) Deny(ctx context.Context, key pki.KeyID, by, reason string) (store.JoinRequest, error) {
	return d.decide(ctx, key, store.RequestDenied, by, reason)
}

func (d *Desk) decide(ctx context.Context, key pki.KeyID, state store.RequestState, by, reason string) (store.JoinRequest, error) {
	if d.config.Requests == nil {
		return store.JoinRequest{}, ErrRequestsClosed
	}
	d.queue.mu.Lock()
	defer d.queue.mu.Unlock()
	record, err := d.config.Requests.JoinRequest(ctx, key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return store.JoinRequest{}, fmt.Errorf("request %s: %w", key.String()[:16], ErrRequestName)
	case err != nil:
		return store.JoinRequest{}, err
	}
	now := d.config.Now().UTC()
	if !now.Before(record.NotAfter) {
		return store.JoinRequest{}, fmt.Errorf("request %s ended at %s: %w", key.String()[:16], record.NotAfter.Format(time.RFC3339), ErrRequestName)
	}
	if record.State == state {
		return record, nil
	}
	held, err := d.config.Holdings.Holding(ctx, record.Machine)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return store.JoinRequest{}, err
	}
	if record.State != store.RequestPending && (state == store.RequestApproved || err == nil && held.Key == key) {
		return store.JoinRequest{}, fmt.Errorf("request %s was %s by %s: %w", key.String()[:16], record.State, record.By, ErrDecided)
	}
	if state == store.RequestApproved {
		if _, err := d.machine(record.Machine); err != nil {
			return store.JoinRequest{}, fmt.Errorf("approving request %s: %w", key.String()[:16], err)
		}
	}
	record.State, record.Decided, record.By, record.Reason = state, now, by, reason
	if err := d.queue.dropLocked(d.config.Requests.UpdateJoinRequest(ctx, record)); err != nil {
		return store.JoinRequest{}, err
	}
	if d.queue.known != nil {
		d.queue.known[key] = record
	}
	d.config.Log.Info("request for a certificate decided", "request", key.String()[:16], "machine", record.MachineName, "state", string(state), "by", by)
	return record, nil
}

// forgetLocked removes one request.
func (d *Desk) forgetLocked(ctx context.Context, key pki.KeyID) error {
	record, err := d.config.Requests.JoinRequest(ctx, key)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return err
	default:
		if err := d.config.Requests.DeleteJoinRequest(ctx, record); err != nil {
			return err
		}
	}
	delete(d.queue.known, key)
	return nil
}
