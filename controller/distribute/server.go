package distribute

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/resolver"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/preshared"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// Assignments is the resolver as the sessions see it.
type Assignments interface {
	// Assignment returns that of a machine, also of one that is not admitted.
	Assignment(machine directory.UUID) resolver.Assignment
	// Adopt tells what a node has in force. When that is newer than what the resolver remembers, revisions go on from
	// there. It returns the assignment.
	Adopt(ctx context.Context, machine directory.UUID, revision uint64, digest []byte) (resolver.Assignment, error)
	// Locate tells from which address a machine's node is connected, and waits until assignments follow that.
	Locate(ctx context.Context, machine directory.UUID, address netip.Addr) error
	// Disabled returns the machines whose account is disabled in the directory.
	Disabled() []directory.UUID
	// Members returns the machines in each group that a policy in force names.
	Members() map[string][]directory.UUID
	// Secrets returns the secrets that the bundle of a present assignment names.
	Secrets(digest compile.Digest) []preshared.Use
	// Bundle returns the bundle of a present assignment.
	Bundle(digest compile.Digest) (compile.Bundle, bool)
}

// Recorder keeps what must outlive the process.
type Recorder interface {
	PutNodes(ctx context.Context, records []store.NodeRecord) error
}

// Config is what a Server works with.
type Config struct {
	Assignments Assignments
	Recorder    Recorder
	// Secrets may be nil: no node is then told any.
	Secrets Secrets
	// Trust returns the trust bundle of the fleet; it is cheap and may be called often.
	Trust func() trust.Bundle
	// Revoked returns what is revoked; nil is nothing. It is cheap and may be called often.
	Revoked func() trust.Revocations
	// Issuer, where not nil, returns the subject key identifier of the CA that issues now.
	Issuer func() []byte
	// TrustDomain is that of the certificates which may open a session.
	TrustDomain string
	// ReportInterval is how often a node reports without a change; 0 means 30 s.
	ReportInterval time.Duration
	// HelloTimeout bounds the wait for the first message; 0 means 15 s.
	HelloTimeout time.Duration
	Now          func() time.Time
	Log          hclog.Logger
}

// A Server implements nodev1.SessionServiceServer.
type Server struct {
	nodev1.UnimplementedSessionServiceServer
	config Config
	// dirty wakes Run: some record changed.
	dirty chan struct{}
	// draining is closed when the controller is about to stop.
	draining chan struct{}
	// denied is nil before the first table of assignments. It is replaced by whoever holds denying, from reading what it is made
	// of on: else what somebody read before a revocation would take the place of what somebody else read after it.
	denied  atomic.Pointer[denials]
	denying sync.Mutex
	// grouped is nil until the first assignments.
	grouped atomic.Pointer[groups]

	table struct {
		sync.Mutex
		sessions map[directory.UUID]*session
		nodes    map[directory.UUID]*node
		unsaved  map[directory.UUID]struct{}
		drained  bool
	}
}

// node is what is known of a node, with or without a session. It belongs to Server.table.
type node struct {
	record   store.NodeRecord
	address  string
	since    time.Time // begin of the present session, zero when there is none
	report   *nodev1.Report
	reported time.Time
}

// New makes a Server that knows the nodes of the records.
func New(c Config, records []store.NodeRecord) *Server {
	if c.ReportInterval == 0 {
		c.ReportInterval = 30 * time.Second
	}
	if c.HelloTimeout == 0 {
		c.HelloTimeout = 15 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	s := &Server{config: c, dirty: make(chan struct{}, 1), draining: make(chan struct{})}
	s.table.sessions = map[directory.UUID]*session{}
	s.table.nodes = map[directory.UUID]*node{}
	s.table.unsaved = map[directory.UUID]struct{}{}
	for _, r := range records {
		s.table.nodes[r.Machine] = &node{record: r}
	}
	return s
}

// A Node describes one node for people. Report must not be changed.
type Node struct {
	Record    store.NodeRecord
	Connected bool
	Address   string
	Since     time.Time
	Report    *nodev1.Report
	Reported  time.Time
}

// Nodes returns every node that ever connected, in no order.
func (s *Server) Nodes() []Node {
	s.table.Lock()
	defer s.table.Unlock()
	nodes := make([]Node, 0, len(s.table.nodes))
	for _, n := range s.table.nodes {
		nodes = append(nodes, n.describe())
	}
	return nodes
}

// Node returns the node of one machine.
func (s *Server) Node(machine directory.UUID) (Node, bool) {
	s.table.Lock()
	defer s.table.Unlock()
	n, ok := s.table.nodes[machine]
	if !ok {
		return Node{}, false
	}
	return n.describe(), true
}

func (n *node) describe() Node {
	return Node{Record: n.record, Connected: !n.since.IsZero(), Address: n.address, Since: n.since, Report: n.report, Reported: n.reported}
}

// Notify wakes the sessions of the machines whose assignment or standing changed, and all sessions when other machines
// than before are not to be believed, or are in the groups that policies name.
func (s *Server) Notify(machines []directory.UUID) {
	changed, err := s.workOutDenials()
	if err != nil {
		s.config.Log.Error("it cannot be worked out which machines the fleet must not believe, nodes keep what they know", "error", err)
	}
	if changed {
		s.config.Log.Info("machines that the fleet must not believe", "machines", s.denied.Load().machines)
		s.NotifyTrust()
	}
	if changed, err = s.workOutGroups(); err != nil {
		s.config.Log.Error("it cannot be worked out who is in the groups that policies name, nodes keep what they know", "error", err)
	}
	if changed {
		s.config.Log.Info("members of the groups that policies name are new", "groups", s.grouped.Load().names)
		s.NotifyTrust()
	}
	s.table.Lock()
	defer s.table.Unlock()
	for _, u := range machines {
		if session, ok := s.table.sessions[u]; ok {
			session.poke()
		}
	}
}

// NotifyTrust wakes all sessions because whom the fleet believes changed.
func (s *Server) NotifyTrust() {
	s.table.Lock()
	defer s.table.Unlock()
	for _, session := range s.table.sessions {
		session.poke()
	}
}

// Drain ends every session with a hint of when to come back, spread over a time that grows with their number, and
// refuses new ones. It waits until all have ended or ctx ends.
func (s *Server) Drain(ctx context.Context) {
	s.table.Lock()
	if !s.table.drained {
		s.table.drained = true
		close(s.draining)
	}
	sessions := make([]*session, 0, len(s.table.sessions))
	for _, session := range s.table.sessions {
		sessions = append(sessions, session)
	}
	s.table.Unlock()
	for _, session := range sessions {
		select {
		case <-session.ended:
		case <-ctx.Done():
			return
		}
	}
}

// reconnectAfter draws when a node shall come back after the controller stopped: 200 nodes a second, which is what one
// small controller takes in handshakes, and at least half a second for a restart.
func (s *Server) reconnectAfter() time.Duration {
	s.table.Lock()
	n := len(s.table.nodes)
	s.table.Unlock()
	spread := max(500*time.Millisecond, time.Duration(n)*5*time.Millisecond)
	return 200*time.Millisecond + rand.N(spread)
}

// saveDelay joins the acknowledgements of a moment into few transactions.
const saveDelay = 100 * time.Millisecond

// Run stores the records of nodes that changed, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	for {
		select {
		case <-s.dirty:
		case <-ctx.Done():
			last, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer stop()
			s.save(last)
			return nil
		}
		timer := time.NewTimer(saveDelay)
		select {
		case <-timer.C:
			s.save(ctx)
		case <-ctx.Done():
			timer.Stop()
			s.touch()
		}
	}
}

func (s *Server) save(ctx context.Context) {
	s.table.Lock()
	records := make([]store.NodeRecord, 0, len(s.table.unsaved))
	for u := range s.table.unsaved {
		records = append(records, s.table.nodes[u].record)
	}
	clear(s.table.unsaved)
	s.table.Unlock()
	if len(records) == 0 {
		return
	}
	err := s.config.Recorder.PutNodes(ctx, records)
	if err == nil {
		return
	}
	if !errors.Is(err, context.Canceled) {
		s.config.Log.Error("cannot store the state of nodes, will try again with the next change", "nodes", len(records), "error", err)
	}
	s.table.Lock()
	for _, r := range records {
		s.table.unsaved[r.Machine] = struct{}{}
	}
	s.table.Unlock()
}

func (s *Server) touch() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// update changes the record of a node and notes that it is to be stored.
func (s *Server) update(u directory.UUID, change func(*node)) {
	s.table.Lock()
	n, ok := s.table.nodes[u]
	if !ok {
		n = &node{record: store.NodeRecord{Machine: u}}
		s.table.nodes[u] = n
	}
	change(n)
	s.table.unsaved[u] = struct{}{}
	s.table.Unlock()
	s.touch()
}
