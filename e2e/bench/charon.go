package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bench/ikeload"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
)

// charonSessions is how many control connections start IKE SAs at a time: one alone is the bottleneck.
const charonSessions = 8

// twoCharons measures a variant between two strongSwan daemons on the same wire and with the same keys. They make no Child
// SA, which is less work than our machines do. With one shared key, and with certificates, one connection is started again
// and again, which is strongSwan's best case; distinct keys need as many connections.
func twoCharons(ctx context.Context, o options, v variant) (c cost, err error) {
	plan := v.plan(o.peers)
	street, err := ikeload.NewStreet(labPrefix, plan)
	if err != nil {
		return cost{}, err
	}
	defer func() { err = errors.Join(err, street.Close()) }()
	var ids ikeload.Identities
	if v.method == ikeload.MethodCertificate {
		if ids, err = ikeload.NewIdentities(v.kind); err != nil {
			return cost{}, err
		}
	}
	var samples []sample
	for range o.rounds {
		s, err := charonBurst(ctx, o, v, street, plan, ids)
		if err != nil {
			return cost{}, fmt.Errorf("%s: %w", v.name, err)
		}
		samples = append(samples, s)
	}
	return summarize(samples), nil
}

// charonBurst starts two fresh daemons, so that no round pays for what an earlier one left.
func charonBurst(ctx context.Context, o options, v variant, street *ikeload.Street, plan ikeload.Plan, ids ikeload.Identities) (s sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, ikeload.BurstLimit)
	defer cancel()
	var daemons []*charon.Daemon
	var names []string
	for _, responder := range []bool{true, false} {
		dir, err := os.MkdirTemp("", "bench")
		if err != nil {
			return s, err
		}
		defer os.RemoveAll(dir)
		config := charonConfig(o, v, plan, ids, responder)
		config.Dir = dir
		config.Host = street.Initiator
		if responder {
			config.Host = street.Responder
		}
		d, err := charon.Start(ctx, config)
		if err != nil {
			return s, err
		}
		defer func() { err = errors.Join(err, d.Kill()) }()
		daemons = append(daemons, d)
		names = names[:0]
		for _, c := range config.Connections {
			names = append(names, c.Name)
		}
	}
	if len(names) == 1 {
		names = slices.Repeat(names, o.peers)
	}
	responder, initiator := daemons[0], daemons[1]
	s, err = timed(initiator.Pid(), responder.Pid(), func() error {
		if err := initiator.Burst(ctx, names, charonSessions); err != nil {
			return err
		}
		for _, d := range daemons {
			if err := established(ctx, d, o.peers); err != nil {
				return err
			}
		}
		return nil
	})
	s.n = o.peers
	return s, err
}

// established polls until a daemon has so many IKE SAs.
func established(ctx context.Context, d *charon.Daemon, want int) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := d.Counts(ctx)
		if err != nil {
			return err
		}
		if c.IKE-c.HalfOpen >= want {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %d associations, of which there are %d, %d of them half-open: %w", want, c.IKE, c.HalfOpen, ctx.Err())
		}
	}
}

func charonConfig(o options, v variant, plan ikeload.Plan, ids ikeload.Identities, responder bool) charon.Config {
	config := charon.Config{Bare: true, Options: map[string]string{
		"reuse_ikesa": "no", "dos_protection": "no", "install_routes": "no", "install_virtual_ip": "no",
	}}
	connection := func(i int) charon.Connection {
		c := charon.Connection{
			Name: fmt.Sprintf("c%d", i), Local: plan.Initiator(i), Remote: plan.Responder(i), Auth: charon.AuthPSK,
			Proposals: []string{"aes256gcm16-prfsha256-x25519"},
			Settings:  map[string]string{"childless": "force", "unique": "never", "mobike": "no", "rekey_time": "0", "send_certreq": "yes", "send_cert": "always"},
		}
		if responder {
			c.Local, c.Remote = c.Remote, c.Local
		}
		c.LocalID, c.RemoteID = c.Local.String(), c.Remote.String()
		return c
	}
	if v.method == ikeload.MethodCertificate {
		own, peer := ids.Initiator, ids.Responder
		if responder {
			own, peer = peer, own
		}
		c := connection(0)
		c.Auth, c.Certificate, c.LocalID, c.RemoteID = charon.AuthCertificate, "own", own.Name, peer.Name
		config.Connections = []charon.Connection{c}
		config.Certificates = []charon.Certificate{{Name: "own", Chain: [][]byte{own.DER}, Key: own.Key}}
		config.Authorities = [][]byte{ids.Root}
		return config
	}
	n := 1
	if v.method == ikeload.MethodDistinctKeys {
		n = o.peers
	}
	for i := range n {
		c := connection(i)
		config.Connections = append(config.Connections, c)
		config.Secrets = append(config.Secrets, charon.Secret{IDs: addresses(c), Key: plan.Key(i)})
	}
	return config
}

func addresses(c charon.Connection) []string {
	var out []string
	for _, a := range []netip.Addr{c.Local, c.Remote} {
		out = append(out, a.String())
	}
	return out
}
