package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// wireguardDevices differ, because wireguard-go puts its sockets into one directory of the machine.
var wireguardDevices = [2]string{"bwbnwga", "bwbnwgb"}

func startWireGuard(ctx context.Context, n *network, o options) error {
	if o.wireguard == "" {
		return errNotHere
	}
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return err
		}
	}
	for i, device := range wireguardDevices {
		if err := n.daemon(i, device+".log", o.wireguard, "--foreground", device); err != nil {
			return err
		}
		conn, err := dialSocket(ctx, "/var/run/wireguard/"+device+".sock")
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = fmt.Fprintf(conn, "set=1\nprivate_key=%x\nlisten_port=51820\npublic_key=%x\nendpoint=%s:51820\nallowed_ip=%s\n\n",
			keys[i].Bytes(), keys[1-i].PublicKey().Bytes(), outer[1-i], nets[1-i])
		if err != nil {
			return err
		}
		answer := make([]byte, 64)
		c, err := conn.Read(answer)
		if err != nil || !strings.HasPrefix(string(answer[:c]), "errno=0\n") {
			return fmt.Errorf("configure %s: %q, %w", device, answer[:c], err)
		}
	}
	if err := n.run(func(i int) []string { return []string{"ip", "link", "set", wireguardDevices[i], "up"} }); err != nil {
		return err
	}
	return n.run(func(i int) []string {
		return []string{"ip", "route", "add", nets[1-i].String(), "dev", wireguardDevices[i], "src", inner[i].String()}
	})
}

// dialSocket connects to a unix socket that a daemon is about to make.
func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

const (
	keyName    = "bench"
	policyName = "Bench"
)

func presharedKey() []byte {
	key := make([]byte, 32)
	_, _ = io.ReadFull(rand.Reader, key) // never fails
	return fmt.Appendf(nil, "%x", key)
}

func startLibipsec(ctx context.Context, n *network, _ options) error {
	if err := n.routes(); err != nil { // strongSwan wants a route to copy
		return err
	}
	key := presharedKey()
	names := [2]string{"a.bench.example", "b.bench.example"}
	for i, h := range n.hosts {
		dir := filepath.Join(n.dir, fmt.Sprintf("charon%d", i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		d, err := charon.Start(ctx, charon.Config{
			Host: h, Dir: dir, Secrets: []charon.Secret{{IDs: names[:], Key: key}},
			Connections: []charon.Connection{{
				Name: "bench", Local: outer[i], Remote: outer[1-i], Auth: charon.AuthPSK, LocalID: names[i], RemoteID: names[1-i],
				Proposals: []string{"aes128gcm16-prfsha256-x25519"},
				Children:  []charon.Child{{Name: "net", LocalTS: nets[i], RemoteTS: nets[1-i], Proposals: []string{"aes128gcm16"}}},
			}},
		})
		if err != nil {
			return err
		}
		if i == 1 {
			return d.Initiate(ctx, "net")
		}
	}
	return nil
}

func startTunnel(ctx context.Context, n *network, o options) error {
	if err := n.routes(); err != nil {
		return err
	}
	return n.startNodes(ctx, o, "always", func(i int) string {
		return fmt.Sprintf("source: %s\n    destination: %s", nets[i], nets[1-i])
	}, func(i int) string { return fmt.Sprintf("\n    tunnel:\n      remote: %s", outer[1-i]) })
}

func startTransport(ctx context.Context, n *network, o options) error {
	n.target, n.meets = outer[1], true
	return n.startNodes(ctx, o, "always", hostToHost, func(int) string { return "" })
}

func startNative(ctx context.Context, n *network, o options) error {
	n.target, n.meets = outer[1], true
	return n.startNodes(ctx, o, "nat", hostToHost, func(int) string { return "" })
}

func hostToHost(i int) string {
	if i == 0 {
		return "source: me\n    destination: " + netip.PrefixFrom(outer[1], 24).Masked().String()
	}
	return "source: me\n    destination: " + outer[0].String()
}

// startNodes starts a node on each side with a policy of its own.
func (n *network) startNodes(ctx context.Context, o options, encapsulation string, filter, tunnel func(i int) string) error {
	node, err := filepath.Abs(o.node)
	if err != nil {
		return err
	}
	key := presharedKey()
	for i := range n.hosts {
		state := filepath.Join(n.dir, fmt.Sprintf("state%d", i))
		policy := filepath.Join(n.dir, fmt.Sprintf("policy%d.yaml", i))
		if err := os.MkdirAll(filepath.Join(state, "secrets"), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(state, "secrets", keyName), key, 0o600); err != nil {
			return err
		}
		document := fmt.Sprintf(`apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: Other side
filters:
  - %s
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Protect
action: negotiate
offers: ["ESP[AES-GCM-128]"]
associations: %d
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: %s
rules:
  - name: Other side
    filterList: Other side
    filterAction: Protect
    authentication: [{method: psk, secretRef: %s}]%s
`, filter(i), max(1, o.associations), policyName, keyName, tunnel(i))
		if err := os.WriteFile(policy, []byte(document), 0o600); err != nil {
			return err
		}
		socket := filepath.Join(n.dir, fmt.Sprintf("node%d.sock", i))
		err := n.daemon(i, fmt.Sprintf("node%d.log", i), node, "run", "--datapath", "userspace", "--state-dir", state, "--socket", socket,
			"--policy", policy, "--policy-name", policyName, "--encapsulation", encapsulation, "--queues", strconv.Itoa(o.queues))
		if err != nil {
			return err
		}
		client := localapi.NewClient(socket)
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			s, err := client.Status(ctx)
			if err == nil && s.Policy == policyName {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("the node does not enforce its policy: %w", errors.Join(ctx.Err(), err))
			case <-tick.C:
			}
		}
	}
	return nil
}
