package agent

import (
	"context"
	"fmt"
	"strings"
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
	case *nodev1.ConnectResponse_Denials:
		a.denials(ctx, m.Denials.GetContent())
	case *nodev1.ConnectResponse_Groups:
		a.groups(ctx, m.Groups.GetContent())
	case *nodev1.ConnectResponse_Secrets:
		a.secrets(ctx, m.Secrets)
	case *nodev1.ConnectResponse_Settings:
		if d := m.Settings.GetReportInterval().AsDuration(); d >= time.Second {
			a.report.interval = d
		}
		a.followIssuer(m.Settings)
	}
}

// assigned compares an assignment with what is in force and asks for the bundle where it is another one.
func (a *Agent) assigned(ctx context.Context, m *nodev1.Assignment) {
	// The latest assignment is the one that counts: a bundle of an earlier one comes too late.
	a.wanted = nil
	if string(m.GetDigest()) != string(a.postponed.assignment.GetDigest()) {
		a.postponed = postponed{}
	}
	if len(m.GetDigest()) != len(compile.Digest{}) {
		a.refuse(m, fmt.Errorf("assignment %d names a bundle by %d octets instead of %d", m.GetRevision(), len(m.GetDigest()), len(compile.Digest{})))
		return
	}
	digest := compile.Digest(m.GetDigest())
	inForce := a.inForce()
	if inForce.Content != nil && inForce.Digest == digest {
		a.postponed = postponed{}
		v := version(m, digest, inForce.Content)
		if a.pending != nil {
			a.pending.version = v
		} else if a.current.Revision != v.Revision || a.current.Policy != v.Policy || a.current.Container != v.Container {
			a.current = v
			a.save()
		}
		said := a.acknowledge(v, nil)
		if a.pending != nil {
			a.pending.said = said
		}
		return
	}
	if a.pending != nil && a.current.Content != nil && a.current.Digest == digest {
		a.putBack(ctx, m, version(m, digest, a.current.Content))
		return
	}
	if r, ok := a.rejected[digest]; ok && a.config.Now().Before(r.until) {
		a.refuse(m, fmt.Errorf("policy %q was in force before and the controller could not be reached under it; it is not tried again before %s", m.GetPolicy(), r.until.UTC().Format(time.RFC3339)))
		a.postponed = postponed{assignment: m, until: r.until}
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
	v := version(wanted, compile.Digest(wanted.GetDigest()), m.GetPolicy())
	if err := a.enforce(ctx, v); err != nil {
		a.failed(wanted, v, err)
		return
	}
	a.postponed = postponed{}
	a.pending = &pending{version: v, deadline: a.config.Now().Add(a.config.Confirm)}
	a.config.Logger.Info("policy is in force", "revision", v.Revision, "policy", v.Policy, "container", v.Container)
	a.pending.said = a.acknowledge(v, nil)
}

// putBack returns from a policy on probation to the committed one, because the controller assigned that again. It needs
// no probation: it is the one that would return at the end of it.
func (a *Agent) putBack(ctx context.Context, m *nodev1.Assignment, v Version) {
	if err := a.enforce(ctx, v); err != nil {
		a.failed(m, v, err)
		return
	}
	a.pending, a.postponed, a.current = nil, postponed{}, v
	a.save()
	a.config.Logger.Info("policy is in force", "revision", v.Revision, "policy", v.Policy, "container", v.Container)
	a.acknowledge(v, nil)
}

// The wait before an assignment that could not be put into force is tried again; it doubles with every failure.
const (
	firstRetry = 10 * time.Second
	lastRetry  = 10 * time.Minute
)

// failed tells that an assignment could not be put into force. What stood in the way may pass, and the controller says
// nothing more until something changes, so it is tried again.
func (a *Agent) failed(m *nodev1.Assignment, v Version, err error) {
	wait := min(max(a.postponed.wait*2, firstRetry), lastRetry)
	a.postponed = postponed{assignment: m, until: a.config.Now().Add(wait), wait: wait}
	a.config.Logger.Error("assigned policy was refused, the previous one stays in force", "revision", v.Revision, "policy", v.Policy, "retry", wait, "error", err)
	a.acknowledge(v, err)
}

// retry does again what did not succeed.
func (a *Agent) retry(ctx context.Context, now time.Time) {
	if a.stale && a.pending == nil {
		a.restoreAgain(ctx)
	}
	if a.unstored != "" && !now.Before(a.storeAgain) {
		a.save()
	}
	if a.connected == "" {
		return
	}
	if a.pending != nil && !a.pending.said {
		a.pending.said = a.acknowledge(a.pending.version, nil)
	}
	if m := a.postponed.assignment; m != nil && a.wanted == nil && !now.Before(a.postponed.until) {
		a.assigned(ctx, m)
	}
}

// restoreAgain puts the committed policy into force where that failed at the start.
func (a *Agent) restoreAgain(ctx context.Context) {
	if err := a.enforce(ctx, a.current); err != nil {
		if a.problem != err.Error() {
			a.problem = err.Error()
			a.config.Logger.Error("the last good policy cannot be put into force, it is tried again", "policy", a.current.Policy, "error", err)
		}
		return
	}
	a.config.Logger.Info("last good policy is in force", "revision", a.current.Revision, "policy", a.current.Policy)
	if a.connected != "" && a.current.Content != nil {
		a.acknowledge(a.current, nil)
	}
}

// confirmed commits the policy on probation: the controller was heard under it.
func (a *Agent) confirmed(revision uint64) {
	if a.pending == nil || a.pending.version.Revision != revision {
		return
	}
	a.current, a.unknown = a.pending.version, false
	a.pending = nil
	delete(a.rejected, a.current.Digest)
	a.wantNames(nil)
	a.save()
	a.config.Logger.Info("policy is committed", "revision", revision)
}

// expire returns to the last committed policy when the one on probation was not confirmed in time.
func (a *Agent) expire(ctx context.Context, now time.Time) {
	if a.pending == nil || now.Before(a.pending.deadline) {
		return
	}
	failed, back := a.pending.version, a.current
	if a.unknown {
		// What was in force before is not known, and to permit everything is no answer to that.
		a.pending.deadline = now.Add(a.config.Confirm)
		a.problem = fmt.Sprintf("policy %q (revision %d) is not confirmed by the controller, and stays because the policy before it cannot be read", failed.Policy, failed.Revision)
		a.config.Logger.Error("policy is not confirmed by the controller, and stays because the policy before it cannot be read", "revision", failed.Revision, "policy", failed.Policy)
		return
	}
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

// maxReason is the longest reason in an acknowledgement, in octets; a controller ends the session over a longer one than
// 4096.
const maxReason = 4000

func reason(err error) string {
	text := err.Error()
	return strings.ToValidUTF8(text[:min(len(text), maxReason)], "")
}

// acknowledge reports whether a session took the message.
func (a *Agent) acknowledge(v Version, failure error) bool {
	if a.config.Session == nil {
		return false
	}
	ack := &nodev1.Acknowledgement{Revision: v.Revision, Digest: v.Digest[:]}
	if failure != nil {
		ack.Error = reason(failure)
	}
	return a.config.Session.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Acknowledgement{Acknowledgement: ack}})
}

func (a *Agent) refuse(m *nodev1.Assignment, err error) {
	a.config.Logger.Error("assignment was refused, the policy in force stays", "revision", m.GetRevision(), "error", err)
	a.config.Session.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Acknowledgement{Acknowledgement: &nodev1.Acknowledgement{
		Revision: m.GetRevision(), Digest: m.GetDigest(), Error: reason(err),
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
		a.acknowledgeTrust(err)
		return
	}
	a.reconfigure(ctx)
	a.recheck(ctx)
	a.acknowledgeTrust(nil)
	a.config.Logger.Info("trust bundle was replaced", "digest", bundle.Digest().String())
}

// reconfigure configures IKE with the present credentials.
func (a *Agent) reconfigure(ctx context.Context) {
	if err := a.config.Engine.Reconfigure(ctx, IKEConfig(a.set, a.config.Identity.Credentials(), a.negotiation())); err != nil {
		a.config.Logger.Error("IKE could not take the new credentials or keys", "error", err)
	}
}
