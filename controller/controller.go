package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/bailiwick-net/bailiwick/controller/admin"
	"github.com/bailiwick-net/bailiwick/controller/authority"
	"github.com/bailiwick-net/bailiwick/controller/distribute"
	"github.com/bailiwick-net/bailiwick/controller/enrollment"
	"github.com/bailiwick-net/bailiwick/controller/grouppolicy"
	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/resolver"
	"github.com/bailiwick-net/bailiwick/controller/revocation"
	"github.com/bailiwick-net/bailiwick/controller/secrets"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// Controller is a controller that is ready to run. Load makes one; Run or Close ends it.
type Controller struct {
	config   validated
	log      hclog.Logger
	state    state
	mirror   *mirror.Union
	events   *eventLog
	resolver *resolver.Resolver
	sessions *distribute.Server
	secrets  *secrets.Keeper
	desk     *enrollment.Desk
	est      estListener
	// authority keeps the CAs of the fleet.
	authority *authority.Keeper
	revoked   *revocation.Keeper
	ends      *certificateEnds
	// groupPolicy reads what Group Policy says in the domains that are configured so.
	groupPolicy []*grouppolicy.Follower
	connections connections
	server      *serverCertificate

	nodes      *grpc.Server
	admins     *grpc.Server
	remote     *grpc.Server // nil without a listener for administrators with certificates
	health     *health.Server
	nodeLs     []net.Listener
	adminLs    net.Listener
	remoteLs   net.Listener
	metricsLs  net.Listener  // nil without metrics
	listsL     net.Listener  // nil without a listener for revocation lists
	openNodes  chan struct{} // closed when the node listeners serve
	closeState sync.Once
}

// Load validates the configuration, opens state, CA and directory, and prepares every part. Nothing is served yet.
func Load(ctx context.Context, config Config) (*Controller, error) {
	v, err := config.validate()
	if err != nil {
		return nil, err
	}
	c := &Controller{config: v, log: v.Log, health: health.NewServer(), openNodes: make(chan struct{}), connections: newConnections(v.Connections)}
	c.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	if c.state, err = v.openStore(ctx); err != nil {
		return nil, err
	}
	if err := c.load(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Controller) load(ctx context.Context) error {
	v, s := c.config, c.state.store
	trustDomain, err := v.trustDomain(ctx, s)
	if err != nil {
		return err
	}
	if c.authority, err = v.openCA(ctx, trustDomain, s); err != nil {
		return err
	}
	currentTrust := c.authority.Trust
	subject, err := pki.NewController(trustDomain, v.dnsNames, v.addresses)
	if err != nil {
		return fmt.Errorf("%w: names: %w", ErrConfig, err)
	}
	c.server = &serverCertificate{authority: c.authority, profile: v.server, subject: subject, now: v.Now, log: v.Log.Named("ca")}
	if err := c.server.replace(ctx); err != nil {
		return err
	}
	if err := c.seed(ctx); err != nil {
		return err
	}
	records, err := s.Nodes(ctx)
	if err != nil {
		return err
	}
	if err := c.openRevocations(ctx, trustDomain, subject); err != nil {
		return err
	}
	// The mirrors wake the resolver, which reads them: the one loop in the wiring is this hint.
	wake := make(chan struct{}, 1)
	c.events = newEventLog(s, v.Log.Named("directory"))
	c.mirror, err = c.openDirectories(ctx, func() {
		c.revoked.DirectoryChanged()
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	c.resolver = resolver.New(resolver.Config{View: c.mirror.View, ViewChanged: wake, Documents: s, Records: records, Log: v.Log.Named("resolver")})
	if c.secrets, err = v.openSecrets(ctx, s); err != nil {
		return err
	}
	c.sessions = distribute.New(distribute.Config{
		Assignments: c.resolver, Recorder: s, Secrets: c.secrets, Trust: currentTrust, Revoked: c.revoked.Set,
		Issuer: func() []byte { return c.authority.Active().Issuing().SubjectKeyId }, TrustDomain: trustDomain,
		ReportInterval: v.ReportInterval, Now: v.Now, Log: v.Log.Named("sessions"),
	}, records)
	c.revoked.Notify(c.revocationsChanged)
	c.authority.OnChange(c.authoritiesChanged)
	c.authority.ConsiderRevoked(c.revoked.Set)
	// A controller that died in the middle of a retirement finishes it.
	if err := c.shutRetired(ctx); err != nil {
		return err
	}
	c.desk = enrollment.New(enrollment.Config{
		Tokens: s, Authority: c.revoked.Guard(c.authority), Snapshot: c.snapshot, Trust: currentTrust, TrustDomain: trustDomain,
		Machine: v.machine, Admin: v.admin, Peer: v.peer, Gateway: v.gateway, Gateways: v.gateways, Requests: s, Rules: v.rules, Kerberos: v.kerberos, Holdings: s, RenewalGrace: v.Enrollment.RenewalGrace, Supersede: c.revoked.Supersede, Barred: c.revoked.Barred, LastRevoked: c.revoked.LastRevoked,
		Now: v.Now, Log: v.Log.Named("enrollment"),
	})
	verifier := peerVerifier{bundle: currentTrust, revoked: c.revoked.Set, now: v.Now, log: v.Log, grace: c.desk.RenewalGrace(), callers: c.connections.grpc}
	c.serveNodes(c.desk, verifier)
	c.serveEST(currentTrust, verifier)
	c.serveAdmins(c.desk, currentTrust, verifier, trustDomain)
	return c.listen(ctx)
}

// seed writes the predefined policies into an empty store. They are linked to nothing.
func (c *Controller) seed(ctx context.Context) error {
	change, err := admin.Documents("predefined.yaml", predefined.Text())
	if err != nil {
		return fmt.Errorf("reading the predefined policies: %w", err)
	}
	change.By, change.At = "bailiwick-controller", c.config.Now()
	seeded, err := c.state.store.Seed(ctx, change)
	if seeded {
		c.log.Info("predefined policies written, they are linked to no container yet", "documents", len(change.Put))
	}
	if errors.Is(err, store.ErrConflict) {
		return nil // another replica did
	}
	return err
}

func (c *Controller) snapshot() *directory.Snapshot {
	if v := c.mirror.View(); v != nil {
		return v.Snapshot
	}
	return nil
}

func (c *Controller) serveNodes(desk *enrollment.Desk, verifier peerVerifier) {
	c.nodes = nodeServer(tlsConfig(c.server), verifier, c.config.Connections.IdleTime, c.log.Named("nodes"))
	nodev1.RegisterEnrollmentServiceServer(c.nodes, enrollment.NewService(desk))
	nodev1.RegisterSessionServiceServer(c.nodes, c.sessions)
	healthpb.RegisterHealthServer(c.nodes, c.health)
}

func (c *Controller) serveAdmins(desk *enrollment.Desk, bundle func() trust.Bundle, verifier peerVerifier, trustDomain string) {
	log := c.log.Named("admin")
	service := admin.New(admin.Config{
		Store: c.state.store, Mirror: c.mirror, Sources: c.config.directories.Sources, Resolver: c.resolver, Sessions: c.sessions, Desk: desk, Secrets: c.secrets, Revocations: c.revoked, Authority: c.authority,
		Trust: bundle, TrustDomain: trustDomain,
		Services: c.config.services(), GroupPolicy: c.groupPolicyStatus, ReadGroupPolicy: c.readGroupPolicy, Now: c.config.Now, Log: log,
	})
	c.ends = &certificateEnds{source: service, now: c.config.Now, log: log}
	c.openGroupPolicy(service)
	authorizer := &admin.Authorizer{TrustDomain: trustDomain}
	c.admins = adminServer(admin.SocketCredentials(), verifier, c.config.Connections.IdleTime, log, authorizer)
	service.Register(c.admins)
	healthpb.RegisterHealthServer(c.admins, c.health)
	if c.config.Admin.Listen == "" {
		return
	}
	c.remote = adminServer(credentials.NewTLS(tlsConfig(c.server)), verifier, c.config.Connections.IdleTime, log, authorizer)
	service.Register(c.remote)
	healthpb.RegisterHealthServer(c.remote, c.health)
}

func (c *Controller) listen(ctx context.Context) error {
	var open net.ListenConfig
	var err error
	for _, address := range c.config.Listen {
		listener, err := open.Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("listening for nodes: %w", err)
		}
		c.nodeLs = append(c.nodeLs, c.connections.grpc.over(listener))
	}
	if c.remote != nil {
		if c.remoteLs, err = open.Listen(ctx, "tcp", c.config.Admin.Listen); err != nil {
			return fmt.Errorf("listening for administrators: %w", err)
		}
		c.remoteLs = c.connections.grpc.over(c.remoteLs)
	}
	if c.config.Metrics.Listen != "" {
		if c.metricsLs, err = open.Listen(ctx, "tcp", c.config.Metrics.Listen); err != nil {
			return fmt.Errorf("listening for metrics: %w", err)
		}
	}
	if err := c.est.listen(ctx, c.config.EST.Listen, c.connections.est); err != nil {
		return err
	}
	if err := c.listenRevocations(ctx); err != nil {
		return err
	}
	c.adminLs, err = listenSocket(ctx, c.config.Admin.Socket)
	return err
}

// NodeAddresses are where nodes connect; a configured port of 0 is resolved here.
func (c *Controller) NodeAddresses() []net.Addr {
	var addrs []net.Addr
	for _, l := range c.nodeLs {
		addrs = append(addrs, l.Addr())
	}
	return addrs
}

// AdminAddress is where administrators with a certificate connect; nil without such a listener.
func (c *Controller) AdminAddress() net.Addr {
	if c.remoteLs == nil {
		return nil
	}
	return c.remoteLs.Addr()
}

// Ready is closed when the controller serves nodes: it has a directory and worked out every assignment.
func (c *Controller) Ready() <-chan struct{} { return c.openNodes }

// Close gives back what Load took, for a controller that is not run.
func (c *Controller) Close() error {
	for _, l := range append(c.nodeLs, c.adminLs, c.remoteLs, c.metricsLs, c.listsL, c.est.listener) {
		if l != nil {
			l.Close()
		}
	}
	var err error
	c.closeState.Do(func() { err = c.state.close() })
	return err
}

// The times that stopping may take.
const (
	drainTime    = 3 * time.Second
	gracefulTime = 2 * time.Second
)

// Run serves until ctx ends or a part fails, then stops everything in order.
func (c *Controller) Run(ctx context.Context) error {
	// Parts outlive ctx: they are stopped one after the other below.
	parts, stopParts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopParts()
	failed := make(chan error, 16)
	var running sync.WaitGroup
	start := func(name string, run func() error) {
		running.Go(func() {
			if err := run(); err != nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	start("directory", func() error { return c.mirror.Run(parts) })
	start("directory events", func() error { return c.events.run(parts) })
	for _, f := range c.groupPolicy {
		start("group policy", func() error {
			// The guard weighs what it says against what the machines have.
			select {
			case <-c.resolver.First():
				return f.Run(parts)
			case <-parts.Done():
				return nil
			}
		})
	}
	start("resolver", func() error { return c.resolver.Run(parts, c.sessions.Notify) })
	start("secrets", func() error { return c.secrets.Run(parts, c.sessions.NotifySecrets) })
	start("revocations", func() error { return c.revoked.Run(parts) })
	start("sessions", func() error { return c.sessions.Run(parts) })
	start("controller certificate", func() error { return c.server.run(parts) })
	start("authorities", func() error {
		c.authority.Follow(parts, c.state.store.WatchAuthorities(parts))
		return nil
	})
	start("store", func() error { return c.watchStore(parts) })
	start("head of the issuing journal", func() error { return c.tellHead(parts) })
	start("ended records", func() error { return c.pruneRecords(parts) })
	start("admin socket", func() error { return c.admins.Serve(c.adminLs) })
	if c.metricsLs != nil {
		start("metrics", func() error { return c.serveMetrics(parts) })
	}
	if c.remote != nil {
		start("admin listener", func() error { return c.remote.Serve(c.remoteLs) })
	}
	if c.listsL != nil {
		start("revocation listener", func() error { return c.serveRevocations(parts) })
		start("revocation lists", func() error { return c.revoked.TendLists(parts) })
	}
	c.log.Info("administrators may connect", "socket", c.config.Admin.Socket)
	ended := make(chan error, 1)
	running.Go(func() { ended <- c.wait(ctx, failed) })
	var result error
	select {
	case <-c.resolver.First():
		for _, l := range c.nodeLs {
			start("node listener", func() error { return c.nodes.Serve(l) })
			c.log.Info("nodes may connect", "address", l.Addr())
		}
		if c.est.server != nil {
			start("EST listener", c.est.serve)
			c.log.Info("EST clients may connect", "address", c.est.listener.Addr())
		}
		c.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
		close(c.openNodes)
		notify("READY=1")
		result = <-ended
	case result = <-ended: // before the first read of the directory
	}
	notify("STOPPING=1")
	c.health.Shutdown()
	drain, cancel := context.WithTimeout(parts, drainTime)
	c.sessions.Drain(drain)
	cancel()
	stop(c.nodes, gracefulTime)
	c.est.stop(gracefulTime)
	if c.remote != nil {
		stop(c.remote, gracefulTime)
	}
	stop(c.admins, gracefulTime)
	stopParts()
	running.Wait()
	err := c.Close()
	c.log.Info("stopped")
	return errors.Join(result, err)
}

// wait waits for the end of ctx or of a part.
func (c *Controller) wait(ctx context.Context, failed <-chan error) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		c.log.Error("a part of the controller failed, it stops", "error", err)
		return err
	case err, ok := <-c.state.failed:
		if !ok || err == nil {
			err = errors.New("it ended")
		}
		c.log.Error("the store failed, the controller stops", "error", err)
		return fmt.Errorf("store: %w", err)
	}
}
