package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/control"
	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/facts"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/keyring"
	"github.com/bailiwick-net/bailiwick/node/local"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// Datapath is what the agent needs of a backend.
type Datapath interface {
	datapath.PolicySetter
	Status() datapath.Status
}

// Engine is what the agent needs of the IKE driver.
type Engine interface {
	Reconfigure(ctx context.Context, config ike.Config) error
	AddressesChanged(ctx context.Context, addresses []netip.Addr) error
	Snapshot(ctx context.Context) (engine.Snapshot, error)
	Recheck(ctx context.Context) error
}

// Session is what the agent needs of the conversation with the controller.
type Session interface {
	Events() <-chan control.Event
	Send(m *nodev1.ConnectRequest) bool
}

// Identity gives the present credentials and takes a new trust bundle.
type Identity interface {
	Credentials() identity.Credentials
	SetTrust(bundle trust.Bundle) error
	// RenewWithin asks for another certificate within the time.
	RenewWithin(within time.Duration)
	// SetDenials takes whom not to believe; the set counts also when the error says that it could not be stored.
	SetDenials(now time.Time, set trust.Denials) error
	ConfirmDenials(now time.Time) error
	Groups() trust.Groups
	// SetGroups takes the members of groups; they count also when the error says that they could not be stored.
	SetGroups(set trust.Groups) error
}

// Names keeps the addresses of DNS names.
type Names interface {
	// Want sets which names are kept.
	Want(names []string)
	// Seed gives answers of an earlier process to names that have none.
	Seed(answers map[string][]netip.Addr)
	// Await waits until each name has an answer or was tried.
	Await(ctx context.Context)
	Answers() map[string][]netip.Addr
	// Problems tells in words which names cannot be resolved.
	Problems() []string
}

// Config configures an Agent. All fields but the durations are required; Session may be nil on a node with a local
// policy only.
type Config struct {
	Dir         string // state directory
	Version     string // of this program
	Instance    string // random per start
	Datapath    Datapath
	Engine      Engine
	Session     Session
	Identity    Identity
	Gather      func() (spd.Facts, error)
	Names       Names
	Negotiation Negotiation
	// LocalPolicy counts while the directory assigns none; nil without one. Rules stand beside either.
	LocalPolicy *local.Policy
	Rules       local.Rules
	// Keys holds the preshared keys, in place of those of Negotiation; the agent owns it. Nil means that there are none but
	// those.
	Keys *keyring.Ring
	// Local is the policy of a node without controller; it is put into force instead of the last good one.
	Local  *Version
	Logger hclog.Logger
	Now    func() time.Time
	// Confirm is how long a new policy may be in force without the controller having been heard under it; 0 means 30 s.
	Confirm time.Duration
	// Interval is the time between reports when nothing changes; 0 means 30 s. Changes are looked for every second.
	Interval time.Duration
}

// Agent holds what the node enforces. Run owns it.
type Agent struct {
	config  Config
	cache   cache
	changed chan struct{} // the facts may have changed
	renewed chan struct{} // the credentials changed
	queries chan chan<- Status
	// ruleChanges are requests to change rules.
	ruleChanges chan ruleChange
	// rules stand beside the policy.
	rules local.Rules

	set         spd.Set
	facts       spd.Facts
	controllers []netip.AddrPort
	stored      map[string][]netip.Addr // answers of the DNS names of the last good policy, from an earlier process
	current     Version                 // committed
	pending     *pending                // in force, not committed
	wanted      *nodev1.Assignment
	postponed   postponed
	stale       bool // current is not in force: it could not be put there yet
	unknown     bool // there is a last good policy, but it cannot be read
	rejected    map[compile.Digest]rejection
	connected   string         // controller of the open session
	informed    bool           // the open session told whom not to believe
	keysFor     compile.Digest // the committed policy for which keys that nobody names were forgotten
	report      reporter
	problem     string // why the node does not enforce what it should
	unstored    string // why what is committed is not on disk; empty when it is
	storeAgain  time.Time
}

// pending is a policy that is in force on probation.
type pending struct {
	version  Version
	deadline time.Time
	said     bool // the acknowledgement was handed to a session
}

// postponed is the latest assignment where it is not in force yet, and when it is tried again: the controller does not
// repeat itself while the session lasts.
type postponed struct {
	assignment *nodev1.Assignment
	until      time.Time
	wait       time.Duration
}

// rejection remembers a policy that cut this node off from its controller, so that it is not tried again at once.
type rejection struct {
	until time.Time
	times int
}

// Status is what the agent knows of itself.
type Status struct {
	Policy      string    `json:"policy"`
	Container   string    `json:"container,omitempty"`
	Revision    uint64    `json:"revision"`
	Digest      string    `json:"digest"`
	Pending     bool      `json:"pending"` // in force, not confirmed yet
	Controller  string    `json:"controller,omitempty"`
	Problem     string    `json:"problem,omitempty"`
	Identity    string    `json:"identity,omitempty"`
	NotAfter    time.Time `json:"notAfter,omitzero"`
	Set         spd.Set   `json:"-"`
	Facts       spd.Facts `json:"facts"`
	Controllers []string  `json:"controllers,omitempty"`
	// Keys describes the preshared keys, without their values.
	Keys []keyring.State `json:"keys,omitempty"`
	// Own is what the machine's own administrator added.
	Own LocalStatus `json:"-"`
}

// New prepares an agent; nothing is put into force before Run.
func New(config Config) (*Agent, error) {
	if config.Confirm == 0 {
		config.Confirm = 30 * time.Second
	}
	if config.Interval == 0 {
		config.Interval = 30 * time.Second
	}
	cache, err := newCache(config.Dir)
	if err != nil {
		return nil, err
	}
	return &Agent{
		config: config, cache: cache, changed: make(chan struct{}, 1), renewed: make(chan struct{}, 1), queries: make(chan chan<- Status),
		ruleChanges: make(chan ruleChange), rules: config.Rules,
		rejected: map[compile.Digest]rejection{}, report: reporter{interval: config.Interval},
	}, nil
}

// FactsChanged says that addresses or routes may have changed. It never blocks.
func (a *Agent) FactsChanged() { signal(a.changed) }

// CredentialsChanged says that Identity gives new credentials. It never blocks.
func (a *Agent) CredentialsChanged() { signal(a.renewed) }

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Status asks the running agent.
func (a *Agent) Status(ctx context.Context) (Status, error) {
	answer := make(chan Status, 1)
	select {
	case a.queries <- answer:
		return <-answer, nil
	case <-ctx.Done():
		return Status{}, ctx.Err()
	}
}

// Run puts the last good policy into force and keeps to what the controller assigns until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	a.restore(ctx)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var events <-chan control.Event
	if a.config.Session != nil {
		events = a.config.Session.Events()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			a.handle(ctx, e)
		case <-a.changed:
			a.refreshFacts(ctx)
		case <-a.renewed:
			a.reconfigure(ctx)
		case <-tick.C:
			a.expire(ctx, a.config.Now())
			a.retry(ctx, a.config.Now())
			a.confirmDenials()
			a.tidyKeys(ctx, a.config.Now())
			a.sendReport(ctx, false)
		case answer := <-a.queries:
			answer <- a.status()
		case r := <-a.ruleChanges:
			r.done <- a.changeRules(ctx, r.change)
		}
	}
}

// restore puts the last good policy into force. Without one nothing is touched: the kernel keeps what an earlier process
// left there.
func (a *Agent) restore(ctx context.Context) {
	if a.config.Local != nil {
		a.current = *a.config.Local
		if err := a.enforce(ctx, a.current); err != nil {
			a.stale, a.problem = true, err.Error()
			a.config.Logger.Error("the local policy cannot be put into force, it is tried again", "policy", a.current.Policy, "error", err)
			return
		}
		a.config.Logger.Info("local policy is in force", "policy", a.current.Policy)
		return
	}
	good, found, err := a.cache.load()
	if err != nil {
		a.unknown, a.problem = true, err.Error()
		a.config.Logger.Error("the last good policy cannot be restored, what the kernel holds stays in force until the controller sends one", "error", err)
		return
	}
	if !found {
		a.restoreBare(ctx)
		return
	}
	a.controllers, a.current, a.stored = good.Controllers, good.Version, good.Names
	if err := a.enforce(ctx, good.Version); err != nil {
		a.stale, a.problem = true, err.Error()
		a.config.Logger.Error("the last good policy cannot be put into force, it is tried again", "revision", good.Version.Revision, "policy", good.Version.Policy, "error", err)
		return
	}
	a.config.Logger.Info("last good policy is in force", "revision", good.Version.Revision, "policy", good.Version.Policy)
}

// enforce expands the version with the present facts and puts it into force. After an error the previous policy is.
func (a *Agent) enforce(ctx context.Context, v Version) error {
	policy, err := a.effective(v)
	if err != nil {
		return err
	}
	a.awaitNames(ctx, policy)
	f, err := a.gather(policy.HostNames())
	if err != nil {
		return fmt.Errorf("find out the addresses of this machine: %w", err)
	}
	set, err := spd.Expand(policy, f)
	if err != nil {
		return fmt.Errorf("expand policy %q: %w", v.Policy, err)
	}
	return a.install(ctx, set, f)
}

// install puts a set into force: the engine first, so that it can answer what the datapath will ask.
func (a *Agent) install(ctx context.Context, set spd.Set, f spd.Facts) error {
	// IKE SAs follow the addresses before the new configuration ends what is bound to former ones.
	if err := a.config.Engine.AddressesChanged(ctx, f.Addresses); err != nil {
		return fmt.Errorf("tell IKE the addresses of this machine: %w", err)
	}
	if err := a.config.Engine.Reconfigure(ctx, IKEConfig(set, a.config.Identity.Credentials(), a.negotiation())); err != nil {
		return fmt.Errorf("configure IKE: %w", err)
	}
	if err := a.config.Datapath.SetPolicy(ctx, set); err != nil {
		restore := a.config.Engine.Reconfigure(ctx, IKEConfig(a.set, a.config.Identity.Credentials(), a.negotiation()))
		return errors.Join(fmt.Errorf("put policy %q into force: %w", set.Name(), err), restore)
	}
	a.set, a.facts, a.stale, a.problem = set, f, false, ""
	return nil
}

func (a *Agent) handle(ctx context.Context, e control.Event) {
	switch e := e.(type) {
	case control.Resolved:
		a.setControllers(ctx, e.Addresses)
	case control.Connected:
		a.connected, a.wanted, a.informed = e.Controller, nil, false
		a.hello()
		a.sendReport(ctx, true)
	case control.Disconnected:
		a.connected = ""
	case control.Message:
		a.handleMessage(ctx, e.Response)
	}
}

func (a *Agent) hello() {
	inForce := a.inForce()
	hello := &nodev1.Hello{Version: a.config.Version, Instance: a.config.Instance, Revision: inForce.Revision}
	if inForce.Content != nil {
		hello.Digest = inForce.Digest[:]
	}
	digest := a.config.Identity.Credentials().Trust.Digest()
	hello.TrustDigest = digest[:]
	a.config.Session.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Hello{Hello: hello}})
}

// inForce is the version that the datapath enforces now; it has no content where this process enforces none yet.
func (a *Agent) inForce() Version {
	switch {
	case a.pending != nil:
		return a.pending.version
	case a.stale:
		return Version{}
	}
	return a.current
}

// setControllers makes the controller's addresses exempt before a connection to them is tried. Addresses that were known
// before stay exempt: one of them may be the one that answers.
func (a *Agent) setControllers(ctx context.Context, found []netip.AddrPort) {
	merged := slices.Clone(a.controllers)
	for _, c := range found {
		if !slices.Contains(merged, c) {
			merged = append(merged, c)
		}
	}
	const most = 32
	if len(merged) > most {
		merged = merged[len(merged)-most:]
	}
	if slices.Equal(merged, a.controllers) {
		return
	}
	a.controllers = merged
	a.refreshFacts(ctx)
}

// refreshFacts expands the policy in force again when the facts differ.
func (a *Agent) refreshFacts(ctx context.Context) {
	// What could not be put into force yet is tried again anyway.
	if a.pending == nil && a.stale || a.inForce().Content == nil && !a.bare() {
		return
	}
	f, err := a.gather(a.set.HostNames())
	if err != nil {
		a.config.Logger.Error("addresses of this machine cannot be found out, the policy stays as it is", "error", err)
		return
	}
	if facts.Equal(f, a.facts) {
		return
	}
	if err := a.enforce(ctx, a.inForce()); err != nil {
		a.problem = err.Error()
		a.config.Logger.Error("policy cannot be adapted to the new addresses of this machine", "error", err)
		return
	}
	a.config.Logger.Info("policy follows the addresses of this machine", "addresses", len(f.Addresses), "controllers", len(f.Controllers))
	a.save()
}

// save stores what is committed. A full disk must not stop enforcement.
func (a *Agent) save() {
	if a.current.Content == nil || a.config.Local != nil {
		return
	}
	err := a.cache.save(lastGood{Version: a.current, Controllers: a.controllers, Names: a.config.Names.Answers()})
	if err == nil {
		if a.unstored != "" {
			a.config.Logger.Info("the policy in force is stored again", "revision", a.current.Revision)
		}
		a.unstored = ""
		return
	}
	a.unstored, a.storeAgain = err.Error(), a.config.Now().Add(a.config.Interval)
	a.config.Logger.Error("the policy in force could not be stored, a restart would bring back an older one", "retry", a.config.Interval, "error", err)
}

// problems are what stands between the node and what it should do, in words.
func (a *Agent) problems() []string {
	var out []string
	for _, p := range []string{a.problem, a.unstored} {
		if p != "" {
			out = append(out, p)
		}
	}
	return append(out, a.config.Names.Problems()...)
}

func (a *Agent) status() Status {
	inForce := a.inForce()
	credentials := a.config.Identity.Credentials()
	s := Status{
		Policy: inForce.Policy, Container: inForce.Container, Revision: inForce.Revision,
		Pending: a.pending != nil, Controller: a.connected, Problem: strings.Join(a.problems(), "; "), Set: a.set, Facts: a.facts,
		Controllers: credentials.Controllers, Own: a.localStatus(),
	}
	if p := s.Own; p.Policy != "" && p.Suppressed == "" {
		s.Policy, s.Container = p.Policy, "local file "+p.File+", as the directory assigns none"
	}
	if inForce.Content != nil {
		s.Digest = inForce.Digest.String()
	}
	if a.config.Keys != nil {
		s.Keys = a.config.Keys.States(a.config.Now())
	}
	if !credentials.Identity.IsZero() {
		s.Identity, s.NotAfter = credentials.Identity.String(), credentials.Leaf().NotAfter
	}
	return s
}
