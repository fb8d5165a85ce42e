package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// handleMessage acts on what the controller said.
func (a *Agent) handleMessage(ctx context.Context, response *nodev1.ConnectResponse) {
	switch m := response.GetMessage().(type) {
	case *nodev1.ConnectResponse_Assignment:
		a.assigned(ctx, m.Assignment)
	case *nodev1.ConnectResponse_Bundle:
		a.bundle(ctx, m.Bundle)
	case *nodev1.ConnectResponse_Confirmed:
		a.confirmed(m.Confirmed.GetRevision())
	case *nodev1.ConnectResponse_TrustBundle:
		a.trust(ctx, m.TrustBundle.GetContent())
	case *nodev1.ConnectResponse_Settings:
		if d := m.Settings.GetReportInterval().AsDuration(); d >= time.Second {
			a.report.interval = d
		}
	}
}

// assigned compares an assignment with what is in force and asks for the bundle where it is another one.
func (a *Agent) assigned(ctx context.Context, m *nodev1.Assignment) {
	if len(m.GetDigest()) != len(compile.Digest{}) {
		a.refuse(m, fmt.Errorf("assignment %d names a bundle by %d octets instead of %d", m.GetRevision(), len(m.GetDigest()), len(compile.Digest{})))
		return
	}
	digest := compile.Digest(m.GetDigest())
	inForce := a.inForce()
	if inForce.Content != nil && inForce.Digest == digest {
		a.wanted = nil
		v := version(m, digest, inForce.Content)
		if a.pending != nil {
			a.pending.version = v
		} else if a.current.Revision != v.Revision || a.current.Policy != v.Policy || a.current.Container != v.Container {
			a.current = v
			a.save()
		}
		a.acknowledge(v, nil)
		return
	}
	if a.pending != nil && a.current.Content != nil && a.current.Digest == digest {
		a.pending = nil
		a.current = version(m, digest, a.current.Content)
		a.put(ctx, a.current)
		return
	}
	if r, ok := a.rejected[digest]; ok && a.config.Now().Before(r.until) {
		a.refuse(m, fmt.Errorf("policy %q was in force before and the controller could not be reached under it; it is not tried again before %s", m.GetPolicy(), r.until.UTC().Format(time.RFC3339)))
		return
	}
	a.wanted = m
	a.config.Session.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Want{Want: &nodev1.Want{Digest: m.GetDigest()}}})
}

func version(m *nodev1.Assignment, digest compile.Digest, content []byte) Version {
	return Version{Revision: m.GetRevision(), Digest: digest, Policy: m.GetPolicy(), Container: m.GetContainer(), Content: content}
}

// bundle puts the bundle that was asked for into force, on probation.
func (a *Agent) bundle(ctx context.Context, m *nodev1.Bundle) {
	if a.wanted == nil || string(m.GetDigest()) != string(a.wanted.GetDigest()) {
		a.config.Logger.Debug("bundle that nobody waits for is ignored")
		return
	}
	wanted := a.wanted
	a.wanted = nil
	a.put(ctx, version(wanted, compile.Digest(wanted.GetDigest()), m.GetPolicy()))
}

func (a *Agent) put(ctx context.Context, v Version) {
	if err := a.enforce(ctx, v); err != nil {
		a.config.Logger.Error("assigned policy was refused, the previous one stays in force", "revision", v.Revision, "policy", v.Policy, "error", err)
		a.acknowledge(v, err)
		return
	}
	a.pending = &pending{version: v, deadline: a.config.Now().Add(a.config.Confirm)}
	a.config.Logger.Info("policy is in force", "revision", v.Revision, "policy", v.Policy, "container", v.Container)
	a.acknowledge(v, nil)
}

// confirmed commits the policy on probation: the controller was heard under it.
func (a *Agent) confirmed(revision uint64) {
	if a.pending == nil || a.pending.version.Revision != revision {
		return
	}
	a.current = a.pending.version
	a.pending = nil
	delete(a.rejected, a.current.Digest)
	a.save()
	a.config.Logger.Info("policy is committed", "revision", revision)
}

// expire returns to the last committed policy when the one on probation was not confirmed in time.
func (a *Agent) expire(ctx context.Context, now time.Time) {
	if a.pending == nil || now.Before(a.pending.deadline) {
		return
	}
	failed, back := a.pending.version, a.current
	if back.Content == nil {
		// Nothing was ever committed: this machine had no policy before.
		none := compile.None()
		back = Version{Digest: none.Digest, Policy: policies.NoneName, Content: none.Policy}
	}
	if err := a.enforce(ctx, back); err != nil {
		a.problem = err.Error()
		a.config.Logger.Error("the previous policy cannot be put back into force", "revision", back.Revision, "error", err)
		a.pending.deadline = now.Add(a.config.Confirm)
		return
	}
	a.pending = nil
	times := a.rejected[failed.Digest].times + 1
	a.rejected[failed.Digest] = rejection{until: now.Add(min(time.Minute<<min(times, 6), time.Hour)), times: times}
	a.problem = fmt.Sprintf("policy %q (revision %d) was taken back: the controller could not be reached under it", failed.Policy, failed.Revision)
	a.config.Logger.Error("policy was taken back: the controller could not be reached under it", "revision", failed.Revision, "policy", failed.Policy, "back to", back.Revision)
	a.acknowledge(failed, fmt.Errorf("taken back after %s: the controller could not be reached under it", a.config.Confirm))
}

func (a *Agent) acknowledge(v Version, failure error) {
	if a.config.Session == nil {
		return
	}
	ack := &nodev1.Acknowledgement{Revision: v.Revision, Digest: v.Digest[:]}
	if failure != nil {
		ack.Error = failure.Error()
	}
	a.config.Session.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Acknowledgement{Acknowledgement: ack}})
}

func (a *Agent) refuse(m *nodev1.Assignment, err error) {
	a.config.Logger.Error("assignment was refused, the policy in force stays", "revision", m.GetRevision(), "error", err)
	a.config.Session.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Acknowledgement{Acknowledgement: &nodev1.Acknowledgement{
		Revision: m.GetRevision(), Digest: m.GetDigest(), Error: err.Error(),
	}}})
}

// trust takes a new trust bundle and configures IKE with it.
func (a *Agent) trust(ctx context.Context, content []byte) {
	bundle, err := trust.ParseBundle(content)
	if err == nil {
		err = a.config.Identity.SetTrust(bundle)
	}
	if err != nil {
		a.config.Logger.Error("trust bundle from the controller was refused, the present one stays", "error", err)
		return
	}
	a.reconfigure(ctx)
	a.config.Logger.Info("trust bundle was replaced", "digest", bundle.Digest().String())
}

// reconfigure configures IKE with the present credentials.
func (a *Agent) reconfigure(ctx context.Context) {
	if err := a.config.Engine.Reconfigure(ctx, IKEConfig(a.set, a.config.Identity.Credentials(), a.config.Negotiation)); err != nil {
		a.config.Logger.Error("IKE could not take the new credentials", "error", err)
	}
}
