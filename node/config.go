// Package node wires the node daemon: configuration, sockets, datapath, IKE, the session with the controller, the agent
// that reconciles them, and the local window onto all of it.
//
// Its invariant: parts start so that nothing is announced before it works, and stop so that nothing leaks: what the
// policy wants protected stays blocked in the kernel unless the configuration says otherwise. It decides nothing itself.
package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/tpm"
	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Defaults of Config.
const (
	DefaultConfigFile = "/etc/bailiwick/node.yaml"
	DefaultStateDir   = "/var/lib/bailiwick/node"
	DefaultSocket     = "/run/bailiwick/node.sock"
)

// DefaultRemoteAccess are the names that Linux gives the interfaces of dial-up (PPP), of mobile networks, and of VPN programs.
func DefaultRemoteAccess() []string {
	return []string{"ppp*", "wwan*", "wwp*", "tun*", "wg*", "vpn*"}
}

// Config is the configuration as it is written. The zero value of every field is its default.
type Config struct {
	// StateDir keeps key, certificate and the last good policy.
	StateDir string `yaml:"stateDir"`
	// Identity says where the machine's private key is made.
	Identity IdentityConfig `yaml:"identity"`
	// Socket is the local socket for status.
	Socket string `yaml:"socket"`
	// Encapsulation is "always" (ESP in UDP between all peers, the default: faster in user space) or "nat" (only where a
	// NAT asks for it).
	Encapsulation string `yaml:"encapsulation"`
	// OnStop is "block" (what must be protected stays blocked, the default) or "release" (all rules are removed).
	OnStop string `yaml:"onStop"`
	// SecretsDir holds preshared keys of this machine's own, one file each, named as rules name them. They count before
	// those that the controller delivers.
	SecretsDir string `yaml:"secretsDir"`
	// Policy is a file of policy documents for a node without controller; PolicyName names the policy in it.
	Policy     string `yaml:"policy"`
	PolicyName string `yaml:"policyName"`
	// LocalPolicy is a file of policy documents for while the directory assigns none to this machine; LocalPolicyName names
	// the policy in it, which need not be where there is one alone.
	LocalPolicy     string `yaml:"localPolicy"`
	LocalPolicyName string `yaml:"localPolicyName"`
	// Datapath is "auto" (the kernel's ESP where it has one, else user space; the default), "userspace" or "xfrm" (the
	// kernel's, or nothing).
	Datapath string `yaml:"datapath"`
	// HardwareOffload asks for network devices that seal and open ESP, with the kernel's ESP alone; status tells what became
	// of that.
	HardwareOffload bool `yaml:"hardwareOffload"`
	// Queues is how many packet threads move ESP in user space, each with its own queue of the TUN and sockets of its own: 1 to
	// 64, or 0 for one for every two processors, at most eight.
	Queues int `yaml:"queues"`
	// Device names the TUN device of the datapath in user space.
	Device string `yaml:"device"`
	// RemoteAccessInterfaces names the interfaces that rules "for remote access" are about, and those "for the LAN" are not; a
	// final * stands for any rest. Without it they are DefaultRemoteAccess, with an empty list there are none.
	RemoteAccessInterfaces []string `yaml:"remoteAccessInterfaces"`
	LogLevel               string   `yaml:"logLevel"`
	// LogFormat is "text" or "json".
	LogFormat string `yaml:"logFormat"`
	// AuditFile receives the audit events, one JSON object a line; empty for none. They go to the log as well.
	AuditFile string `yaml:"auditFile"`
	// KeyLog is a file that receives the keys of every association, for a protocol analyser. It breaks the secrecy of
	// all traffic and is for debugging only.
	KeyLog string `yaml:"keyLog"`
}

// Load reads a configuration file. A file that does not exist is the default configuration if it was not asked for.
func Load(path string, required bool) (Config, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return Config{}, nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	return parseConfig(path, content)
}

// parseConfig reads the content of the file at path.
func parseConfig(path string, content []byte) (Config, error) {
	var c Config
	if err := yaml.UnmarshalWithOptions(content, &c, yaml.Strict()); err != nil {
		return c, fmt.Errorf("configuration %s: %s", path, yaml.FormatError(err, false, true))
	}
	return c, nil
}

// validated fills the defaults and refuses what cannot be meant.
func (c Config) validated() (Config, error) {
	if c.StateDir == "" {
		c.StateDir = DefaultStateDir
	}
	if c.Socket == "" {
		c.Socket = DefaultSocket
	}
	if c.Identity.Device == "" {
		c.Identity.Device = tpm.DefaultDevice
	}
	if c.SecretsDir == "" {
		c.SecretsDir = filepath.Join(c.StateDir, "secrets")
	}
	if c.LogLevel == "" {
		c.LogLevel = "info"
	}
	for _, choice := range []struct {
		field   string
		value   *string
		choices []string
	}{
		{"identity.key", &c.Identity.Key, []string{identity.InFile.String(), identity.InTPM.String(), identity.Auto.String()}},
		{"identity.algorithm", &c.Identity.Algorithm, []string{algorithmP256, algorithmP384}},
		{"encapsulation", &c.Encapsulation, []string{"always", "nat"}},
		{"datapath", &c.Datapath, []string{datapathAuto, datapathUserspace, datapathXFRM}},
		{"onStop", &c.OnStop, []string{"block", "release"}},
		{"logFormat", &c.LogFormat, []string{"text", "json"}},
	} {
		if *choice.value == "" {
			*choice.value = choice.choices[0]
		}
		if !strings.Contains(" "+strings.Join(choice.choices, " ")+" ", " "+*choice.value+" ") {
			return c, fmt.Errorf("configuration: %s is %q, want one of %s", choice.field, *choice.value, strings.Join(choice.choices, ", "))
		}
	}
	if c.HardwareOffload && c.Datapath == datapathUserspace {
		return c, errors.New("configuration: hardwareOffload is for the kernel's ESP, and datapath is userspace: remove one of them")
	}
	if c.Queues < 0 || c.Queues > transport.MaxQueues {
		return c, fmt.Errorf("configuration: queues is %d, want 1 to %d, or 0 for one for every two processors", c.Queues, transport.MaxQueues)
	}
	if c.RemoteAccessInterfaces == nil {
		c.RemoteAccessInterfaces = DefaultRemoteAccess()
	}
	for _, name := range c.RemoteAccessInterfaces {
		if err := spd.CheckInterface(name); err != nil {
			return c, fmt.Errorf("configuration: remoteAccessInterfaces: %w", err)
		}
	}
	if hclog.LevelFromString(c.LogLevel) == hclog.NoLevel {
		return c, fmt.Errorf("configuration: logLevel is %q, want trace, debug, info, warn or error", c.LogLevel)
	}
	if (c.Policy == "") != (c.PolicyName == "") {
		return c, errors.New("configuration: policy and policyName belong together: a file, and the policy of it to put into force")
	}
	if c.LocalPolicyName != "" && c.LocalPolicy == "" {
		return c, errors.New("configuration: localPolicyName names a policy of the file localPolicy, which is not given")
	}
	if c.LocalPolicy != "" && c.Policy != "" {
		return c, errors.New("configuration: policy is for a machine without controller, and localPolicy for one with: give one of them")
	}
	return c, nil
}

// logger makes the daemon's log. The configuration must be valid.
func (c Config) logger(logs io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: "node", Level: hclog.LevelFromString(c.LogLevel), Output: logs, JSONFormat: c.LogFormat == "json"})
}
