package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/bailiwick-net/bailiwick/node/agent"
	"github.com/bailiwick-net/bailiwick/node/audit"
	"github.com/bailiwick-net/bailiwick/node/carrier"
	"github.com/bailiwick-net/bailiwick/node/control"
	"github.com/bailiwick-net/bailiwick/node/custody"
	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace"
	"github.com/bailiwick-net/bailiwick/node/facts"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/ike/driver"
	"github.com/bailiwick-net/bailiwick/node/ike/trace"
	"github.com/bailiwick-net/bailiwick/node/keyring"
	"github.com/bailiwick-net/bailiwick/node/local"
	"github.com/bailiwick-net/bailiwick/node/localapi"
	"github.com/bailiwick-net/bailiwick/node/statefile"
	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Node is a running daemon; it answers the local window.
type Node struct {
	version    string
	membership *membership
	agent      *agent.Agent
	datapath   datapath.Backend
	driver     *driver.Driver
	trace      *trace.Hub
	transport  func() transport.Stats
	keyLog     string // file that receives all keys, for debugging only
}

// Run is the daemon: it enforces until ctx ends, then says goodbye to its peers and stops. logs receives the log; held is
// what a process of Hold has left to this one, or nil.
func Run(ctx context.Context, config Config, version string, logs io.Writer, held *custody.Held) (err error) {
	config, err = config.validated()
	if err != nil {
		return err
	}
	log := config.logger(logs)
	store, err := config.store()
	if err != nil {
		return err
	}
	lock, err := statefile.Lock(config.StateDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	members, err := newMembership(store, config.Policy != "")
	if err != nil {
		return err
	}
	keys, err := keyring.Open(config.StateDir, config.SecretsDir)
	if err != nil {
		return err
	}
	alone, err := localPolicy(config)
	if err != nil {
		return err
	}
	own, rules, err := ownPolicy(config)
	if err != nil {
		return err
	}
	keyLog, err := openKeyLog(config, log)
	if err != nil {
		return err
	}
	defer keyLog.Close()

	backend, err := openMoving(config, held, log)
	if err != nil {
		return err
	}
	sockets := backend.sockets
	defer sockets.Close()
	defer func() { err = errors.Join(err, backend.Close(config.OnStop == "release")) }()

	carried := carrier.New(sockets)
	defer carried.Stop()
	events, err := audit.New(log.Named("audit"), config.AuditFile)
	if err != nil {
		return err
	}
	seen := &observer{trace: trace.NewHub(), audit: events}
	tokens, err := crashSecret(config.StateDir)
	if err != nil {
		return err
	}
	negotiation := agent.Negotiation{CrashSecret: tokens, ForceEncap: config.Encapsulation == "always", KeyLog: config.KeyLog != "", Secrets: keys.Keys(time.Now())}
	ike, err := driver.New(driver.Config{
		IKE:       agent.IKEConfig(spd.Set{}, members.Credentials(), negotiation),
		Transport: carried,
		SADB:      backend, Gate: backend, Events: backend.Events(),
		Jobs:    driver.NewJobs(members),
		Source:  sockets.Source,
		Log:     log.Named("ike"),
		KeyLog:  keyLog,
		Observe: seen.observe,
	})
	if err != nil {
		return fmt.Errorf("start IKE: %w", err)
	}
	var client *control.Client
	names := facts.NewNames(facts.Resolve)
	agentConfig := agent.Config{
		Dir: config.StateDir, Version: version, Instance: instance(), Datapath: backend, Engine: ike, Identity: members,
		Gather: func() (spd.Facts, error) { return facts.Gather(sources(config)) },
		Names:  names, Negotiation: negotiation, Keys: keys, Local: alone, LocalPolicy: own, Rules: rules, Logger: log.Named("agent"), Now: time.Now,
	}
	if alone == nil {
		client = control.New(control.Config{Credentials: members.Credentials, Denials: members.denied, Mark: int(userspace.MarkOwn), Now: time.Now, Logger: log.Named("control")})
		agentConfig.Session = client
	}
	reconciler, err := agent.New(agentConfig)
	if err != nil {
		return err
	}
	listener, err := localapi.Listen(ctx, config.Socket)
	if err != nil {
		return err
	}
	n := &Node{version: version, membership: members, agent: reconciler, datapath: backend, driver: ike, trace: seen.trace, transport: sockets.Stats, keyLog: config.KeyLog}

	// IKE outlives the rest for a moment, so that peers hear that their associations are gone.
	ikeContext, stopIKE := context.WithCancel(context.WithoutCancel(ctx))
	ikeDone := make(chan error, 1)
	auditContext, stopAudit := context.WithCancel(context.WithoutCancel(ctx))
	auditDone := make(chan error, 1)
	go func() { auditDone <- events.Run(auditContext) }()
	events.Started(time.Now())
	go func() { ikeDone <- ike.Run(ikeContext) }()
	group, groupContext := errgroup.WithContext(ctx)
	group.Go(func() error { return reconciler.Run(groupContext) })
	group.Go(func() error { return localapi.Serve(groupContext, listener, config.Socket, n) })
	group.Go(func() error { return facts.Watch(groupContext, reconciler.FactsChanged) })
	group.Go(func() error { return names.Run(groupContext, reconciler.FactsChanged) })
	group.Go(func() error { return members.watchKey(groupContext, log.Named("identity")) })
	if client != nil {
		group.Go(func() error { return client.Run(groupContext) })
		group.Go(func() error {
			return members.renew(groupContext, client, reconciler.CredentialsChanged, log.Named("identity"))
		})
	}
	log.Info("bailiwick-node is running", "version", version, "machine", machineName(members.Credentials()), "state", config.StateDir)
	held.Up()
	err = group.Wait()
	stopIKE()
	err = errors.Join(err, <-ikeDone)
	events.Stopped(time.Now())
	stopAudit()
	return errors.Join(err, <-auditDone)
}

// machineName is the machine's identity for the log.
func machineName(c identity.Credentials) string {
	if c.Identity.IsZero() {
		return "without certificate"
	}
	return c.Identity.String()
}

func sources(config Config) facts.Sources {
	return facts.Sources{Ignore: []string{deviceName(config)}, RemoteAccess: config.RemoteAccessInterfaces}
}

func deviceName(config Config) string {
	if config.Device != "" {
		return config.Device
	}
	return userspace.DefaultName
}

// instance names this start of the daemon.
func instance() string {
	var b [8]byte
	// crypto/rand.Read never fails (it ends the program instead).
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// ownPolicy reads what the machine's own administrator wants beside or in place of a policy of the directory.
func ownPolicy(config Config) (*local.Policy, local.Rules, error) {
	rules, err := local.OpenRules(config.StateDir)
	if err != nil || config.LocalPolicy == "" {
		return nil, rules, err
	}
	policy, err := local.LoadPolicy(config.LocalPolicy, config.LocalPolicyName)
	return &policy, rules, err
}

// localPolicy compiles the policy of a node without controller; predefined documents need not be in its file.
func localPolicy(config Config) (*agent.Version, error) {
	if config.Policy == "" {
		return nil, nil
	}
	policy, err := local.LoadPolicy(config.Policy, config.PolicyName)
	if err != nil {
		return nil, err
	}
	bundle, err := compile.Seal(policy.Rest)
	if err != nil {
		return nil, err
	}
	return &agent.Version{Digest: bundle.Digest, Policy: config.PolicyName, Container: "local file " + config.Policy, Content: bundle.Policy}, nil
}

// keyLogFile is the debug-only key log, or nothing.
type keyLogFile struct {
	mu   sync.Mutex
	file *os.File
}

func openKeyLog(config Config, log hclog.Logger) (*keyLogFile, error) {
	if config.KeyLog == "" {
		return &keyLogFile{}, nil
	}
	file, err := os.OpenFile(config.KeyLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the key log: %w", err)
	}
	log.Warn("ALL KEYS ARE WRITTEN TO A FILE: whoever reads it reads all protected traffic of this machine", "file", config.KeyLog)
	return &keyLogFile{file: file}, nil
}

// Write appends to the key log.
func (k *keyLogFile) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.file == nil {
		return len(b), nil
	}
	return k.file.Write(b)
}

// Close ends the key log.
func (k *keyLogFile) Close() error {
	if k.file == nil {
		return nil
	}
	return k.file.Close()
}
