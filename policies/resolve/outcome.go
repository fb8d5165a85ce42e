package resolve

import (
	"fmt"
	"slices"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
)

// outcome runs the algorithm of MS-GPOL 3.2.5.1.5 over the levels of a chain. Where that document contradicts itself
// about the order within one container, the explicit order counts: 1 is applied last, in both lists.
func (p *Plan) outcome(c *chain, groups membership) *Outcome {
	var normal, forced, lost []Entry
	var blocker directory.DN
	blocked := false
	for _, l := range slices.Backward(c.levels) { // from the machine upwards
		var own, ownForced []Entry
		for _, link := range l.links {
			e := Entry{
				Link: link, Policy: link.Policy, Container: l.dn, SOMOrder: l.order, LinkOrder: link.Order, Enabled: !link.Disabled, NoOverride: link.Enforced,
			}
			e.Reason, e.Sentence = unfit(l, link, groups, blocked, blocker)
			switch {
			case e.Reason != 0:
				lost = append(lost, e)
			case link.Enforced:
				ownForced = append(ownForced, e)
			default:
				own = append(own, e)
			}
		}
		slices.Reverse(own)
		slices.Reverse(ownForced)
		normal = append(own, normal...)
		forced = append(forced, ownForced...)
		if l.block && !blocked { // for the containers above, not for this one
			blocked, blocker = true, l.dn
		}
	}
	applied := append(normal, forced...) // from first to last; the last one wins
	out := &Outcome{Policy: policies.NoneName}
	for i := len(applied) - 1; i >= 0; i-- {
		e := applied[i]
		e.AppliedOrder, e.Precedence = i+1, len(applied)-i
		if e.Precedence == 1 {
			e.Reason, e.Sentence = Won, won(e, len(applied))
		} else {
			e.Reason, e.Sentence = Overridden, overridden(e, out.Entries[0])
		}
		out.Entries = append(out.Entries, e)
	}
	if winner, ok := out.Winner(); ok {
		out.Policy = winner.Policy
		if !p.exists[winner.Policy] {
			out.Policy = ""
			out.Err = fmt.Errorf("link %q at %s wins, but policy %q: %w", winner.Link.Key(), winner.Container, winner.Policy, policies.ErrReference)
		}
	}
	out.Entries = append(out.Entries, lost...)
	return out
}

// unfit tells why a link does not apply at all; no reason if it does. The order of the tests is that in which an
// administrator would have to take the obstacles away.
func unfit(l level, link policies.Link, groups membership, blocked bool, blocker directory.DN) (Reason, string) {
	switch {
	case l.order == 0:
		return NotAScope, fmt.Sprintf("%s is neither an organizational unit nor a domain, so it has no links", l.dn)
	case link.Disabled:
		return LinkDisabled, "the link is disabled"
	case blocked && !link.Enforced:
		return InheritanceBlocked, fmt.Sprintf("%s blocks inheritance, and the link is not enforced", blocker)
	}
	for _, dn := range link.Deny {
		if groups.groups[dn.Key()] {
			return DeniedByGroup, fmt.Sprintf("the machine is a member of %s, which the link denies", dn)
		}
	}
	if len(link.Apply) > 0 && !slices.ContainsFunc(link.Apply, func(dn directory.DN) bool { return groups.groups[dn.Key()] }) {
		return NotInGroup, "the machine is a member of none of the groups that the link applies to"
	}
	return 0, ""
}

func won(e Entry, applied int) string {
	switch {
	case applied == 1:
		return "it is the only link that applies"
	case e.NoOverride:
		return fmt.Sprintf("it is enforced at %s, and no enforced link stands above it", e.Container)
	case policies.IsSite(e.Container):
		return fmt.Sprintf("no link to a container above the machine applies, so that of its site %s counts", e.Container)
	}
	return fmt.Sprintf("%s is the nearest container with a link that applies, and no link is enforced", e.Container)
}

// overridden says what the winner has ahead of the loser.
func overridden(loser, winner Entry) string {
	same := loser.Container.Equal(winner.Container)
	switch {
	case winner.NoOverride && !loser.NoOverride:
		return fmt.Sprintf("%q is enforced at %s, and this link is not enforced", winner.Policy, winner.Container)
	case same:
		return fmt.Sprintf("%q has link order %d at the same container, before %d", winner.Policy, winner.LinkOrder, loser.LinkOrder)
	case winner.NoOverride:
		return fmt.Sprintf("%q is enforced at %s, which is higher", winner.Policy, winner.Container)
	}
	return fmt.Sprintf("%q is linked at %s, which is nearer to the machine", winner.Policy, winner.Container)
}
