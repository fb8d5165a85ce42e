//go:build ikebug

package impair

import "slices"

// Enabled tells that faults can be switched on in this build.
const Enabled = true

// active are the faults that are on, for the one goroutine of a test.
var active []Fault

// Set switches these faults on and all others off.
func Set(faults ...Fault) { active = faults }

// On reports whether a fault is on.
func On(f Fault) bool { return len(active) > 0 && slices.Contains(active, f) }

// Bugs are all the bugs.
func Bugs() []Fault {
	return []Fault{
		WrongTieBreak, ForgetDeleting, MessageIDStuck, AnswerDiffers, OutboundFirst, KeysReused, UnofferedGroup, SurvivorEmpty,
		FallbackAnyway, HalfOpenUnlimited, LateResponse, WeakerProposal, CookieUnbound, VectorRepeats, RefuseNothing, NeverSwitch,
		ForgetAdoption, SpinRedundant, ClockBack, KeepDuplicates, DeleteOldFirst, IgnoreFirstContact, OutboundHalfFirst,
		ForgetPeerRekey,
	}
}
