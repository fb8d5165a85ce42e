// Package grouppolicy is the loop that reads what Group Policy says in an Active Directory domain, its IPsec policies with
// the links of Group Policy objects and the sites of its forest, and makes it documents of the fleet.
//
// Its invariants: what is written was read twice alike and in full; whatever cannot be read or understood leaves the
// documents of before in force, and is told; documents that somebody else wrote are never touched. It leaves the meaning of
// the objects to policies/gpipsec, reading to directory/ldap, and writing to whoever owns the documents.
package grouppolicy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/gpipsec"
)

// DefaultInterval is between two reads. Windows looks every 90 minutes; a domain controller barely notices one read a minute.
const DefaultInterval = time.Minute

// ErrUnstable says that two reads in a row found different things.
var ErrUnstable = errors.New("what Group Policy says changes while it is read")

// ErrHeld says that a change waits for an administrator.
var ErrHeld = errors.New("held by the mass-change guard")

// A Reader reads entries of the domain; ldap.Reader is one.
type Reader interface {
	gpipsec.Searcher
	Contexts() (domain, configuration directory.DN, err error)
	Close()
}

// Written is what became of the documents.
type Written struct {
	// Changed is how many documents were written or deleted.
	Changed int
	// Kept names those that somebody else wrote under the same name.
	Kept []string
}

// Config is what a Follower works with.
type Config struct {
	// Source names the directory.
	Source string
	// Base is the top of its tree.
	Base directory.DN
	// Assignment says that policies and links are read, beside the sites.
	Assignment bool
	// Open connects.
	Open func(ctx context.Context) (Reader, error)
	// Replace makes these documents all that the owner has, or changes nothing.
	Replace func(ctx context.Context, owner string, docs policies.Documents) (Written, error)
	// Interval is DefaultInterval when 0.
	Interval time.Duration
	Now      func() time.Time
	Log      hclog.Logger
}

// FromLDAP opens readers of a server.
func FromLDAP(c ldap.Config) func(context.Context) (Reader, error) {
	return func(ctx context.Context) (Reader, error) { return ldap.OpenReader(ctx, c) }
}

// Status describes a Follower for people.
type Status struct {
	Source string
	// Assignment says that policies and links are read, beside the sites.
	Assignment bool
	// LastRead is when the documents were last seen to say what Group Policy does.
	LastRead time.Time
	// Policies, Links and Sites count what was read then.
	Policies, Links, Sites int
	// Notes tell what documents cannot say, or who else wrote one.
	Notes []string
	// LastError is why the latest read came to nothing, "" when it did not.
	LastError   string
	LastErrorAt time.Time
}

// A Follower reads one domain. It runs once.
type Follower struct {
	config Config
	wake   chan struct{}
	mu     sync.Mutex
	status Status
}

// New makes a Follower.
func New(c Config) *Follower {
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	return &Follower{config: c, wake: make(chan struct{}, 1), status: Status{Source: c.Source, Assignment: c.Assignment}}
}

// Status may be called by any goroutine.
func (f *Follower) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

// Owner is who documents of a source are written by.
func Owner(source string) string { return ownerPrefix + source }

// Source is the inverse of Owner.
func Source(owner string) string { return strings.TrimPrefix(owner, ownerPrefix) }

const ownerPrefix = "group-policy:"

// Wake has it read now.
func (f *Follower) Wake() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Run reads again and again until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-due.C:
		case <-f.wake:
		}
		if err := f.Once(ctx); err != nil && ctx.Err() == nil {
			f.config.Log.Error("what Group Policy says is not taken over, the documents of before stay in force", "source", f.config.Source, "error", err)
		}
		due.Reset(f.config.Interval)
	}
}

// Once reads and writes once.
func (f *Follower) Once(ctx context.Context) error {
	status, err := f.once(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.status.LastError, f.status.LastErrorAt = err.Error(), f.config.Now()
		return err
	}
	f.status = status
	return nil
}

func (f *Follower) once(ctx context.Context) (Status, error) {
	first, err := f.read(ctx)
	if err != nil {
		return Status{}, err
	}
	second, err := f.read(ctx)
	if err != nil {
		return Status{}, err
	}
	if !bytes.Equal(first.Documents.Export(), second.Documents.Export()) {
		return Status{}, ErrUnstable
	}
	written, err := f.config.Replace(ctx, Owner(f.config.Source), second.Documents)
	if err != nil {
		return Status{}, fmt.Errorf("writing the documents of Group Policy: %w", err)
	}
	d := second.Documents
	status := Status{
		Source: f.config.Source, Assignment: f.config.Assignment, LastRead: f.config.Now(), Policies: len(d.Policies), Links: len(d.Links), Sites: len(d.Sites),
	}
	for _, n := range second.Notes {
		status.Notes = append(status.Notes, n.String())
	}
	for _, s := range second.Secrets {
		status.Notes = append(status.Notes, fmt.Sprintf("secret %q stands for a preshared key of Group Policy, which is not taken over", s.Name))
	}
	for _, k := range written.Kept {
		status.Notes = append(status.Notes, k+" was written by somebody else and stays: delete it, and what Group Policy says takes its place")
	}
	if written.Changed > 0 {
		f.config.Log.Info("what Group Policy says was taken over", "source", f.config.Source, "documents", written.Changed, "policies", status.Policies, "links", status.Links, "sites", status.Sites)
	}
	return status, nil
}

// read reads once.
func (f *Follower) read(ctx context.Context) (gpipsec.Result, error) {
	r, err := f.config.Open(ctx)
	if err != nil {
		return gpipsec.Result{}, err
	}
	defer r.Close()
	domain, configuration, err := r.Contexts()
	if err != nil {
		return gpipsec.Result{}, err
	}
	sites, err := gpipsec.ReadSites(r, configuration)
	if err != nil {
		return gpipsec.Result{}, err
	}
	if !f.config.Assignment {
		var out gpipsec.Result
		out.Documents.Sites, out.Notes = gpipsec.Sites(sites)
		return out, nil
	}
	if !f.config.Base.Equal(domain) {
		// Links above the base would not be known to apply, nor that they are blocked.
		return gpipsec.Result{}, fmt.Errorf("native assignment needs the whole domain: the directory's base is %s, that of the domain %s", f.config.Base, domain)
	}
	entries, err := gpipsec.Read(r, domain, directory.DN{})
	if err != nil {
		return gpipsec.Result{}, err
	}
	return gpipsec.Convert(slices.Concat(entries, sites), gpipsec.Options{Prefix: domain.Domain() + ": ", Native: true})
}
