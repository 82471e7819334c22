package task

// The names of the events that programs use, as the appspec writes them.
const (
	eventBeforeBlock   = "BeforeBlockTraffic"
	eventBlock         = "BlockTraffic"
	eventAfterBlock    = "AfterBlockTraffic"
	eventStop          = "ApplicationStop"
	eventDownload      = "DownloadBundle"
	eventBeforeInstall = "BeforeInstall"
	eventInstall       = "Install"
	eventAfterInstall  = "AfterInstall"
	eventStart         = "ApplicationStart"
	eventValidate      = "ValidateService"
	eventBeforeAllow   = "BeforeAllowTraffic"
	eventAllow         = "AllowTraffic"
	eventAfterAllow    = "AfterAllowTraffic"
)

// maxTries bounds staging and the way back: what fails three times is not
// going to be mended by a fourth.
const maxTries = 3

// forward is the program of a new assignment, whatever the world is like. A
// fresh one begins with a new permit; another takes over the permit, and the
// middle, of the one before.
func forward(a Assignment, w World, fresh bool) []Step {
	b := builder{a: a, from: w.Installed, to: a.Goal}
	if len(a.Events) > 0 {
		return b.listed(a, w)
	}
	if a.Goal != "" && a.Goal != w.Base && a.Goal != w.Installed || fresh && a.Goal != "" {
		b.add(Step{Kind: KindStage, Event: eventDownload, Revision: a.Goal})
	}
	b.add(Step{Kind: KindAccept})
	if a.Permit == PermitNone {
		return b.report(ResultIdle, w.Installed)
	}
	if a.Permit == PermitConditional && fresh {
		b.add(Step{Kind: KindCheckIdle})
	}
	if a.Verify && fresh && a.Permit == PermitNormal && a.Goal == w.Installed && !w.Disturbed() {
		b.add(Step{Kind: KindVerify, Revision: a.Goal})
	}
	switch {
	case w.Undoable && a.Goal == w.Base:
		return b.back(a, w)
	case w.Disturbed() && a.Goal == w.Base:
		return b.undisturb(a, w)
	case w.Undoable: // another goal: first to what can be undone again
		b.undo(w)
	default:
		b.takeOut(a, w, fresh)
	}
	b.bringIn(a)
	b.admit(a.Traffic || w.Blocked, a.Goal)
	return b.report(ResultDone, a.Goal)
}

// listed is the program of a local deployment: the events of its list in their
// order. The revision is staged before the first of them, so that a bad bundle
// stops nothing; DownloadBundle has then nothing left to do at its place.
func (b *builder) listed(a Assignment, w World) []Step {
	b.add(Step{Kind: KindStage, Event: eventDownload, Revision: a.Goal})
	b.add(Step{Kind: KindAccept})
	if w.Undoable { // a deployment before this one was cut off
		b.undo(w)
	}
	for _, e := range a.Events {
		switch e {
		case eventDownload:
		case eventInstall:
			b.add(Step{Kind: KindInstall, Event: e, Revision: a.Goal})
		case eventBeforeBlock, eventAfterBlock, eventStop:
			b.hookOf(w.Base, e, !a.StopFails)
		default:
			b.hookOf(a.Goal, e, false)
		}
	}
	b.add(Step{Kind: KindSettle, Revision: a.Goal})
	return b.report(ResultDone, a.Goal)
}

// takeOut takes the running revision out of service, as far as it still is in.
func (b *builder) takeOut(a Assignment, w World, fresh bool) {
	serving := w.Base != ""
	if a.Traffic && w.Drained != a.pools() {
		if serving {
			b.hookOf(w.Base, eventBeforeBlock, !a.StopFails)
		}
		b.hookOf(w.Base, eventBlock, false) // a host that runs nothing yet gets traffic when it is validated
		if serving {
			b.hookOf(w.Base, eventAfterBlock, !a.StopFails)
		}
	}
	if serving && (fresh || !w.Stopped) {
		b.hookOf(w.Base, eventStop, !a.StopFails)
	}
}

// shut takes traffic away again where it may have been let in, before anything is
// stopped.
func (b *builder) shut(w World) {
	if b.a.Traffic && w.Drained != b.a.pools() {
		b.hookOf(w.Installed, eventBlock, false)
		b.shuts = true
	}
}

// undo stops what is installed beyond the base and puts the base back.
func (b *builder) undo(w World) {
	b.shut(w)
	if w.Installed != "" && w.Installed != w.Base {
		b.hookOf(w.Installed, eventStop, true)
	}
	b.add(Step{Kind: KindUndo, Revision: w.Base})
}

// bringIn installs and starts the goal. No goal means to run nothing.
func (b *builder) bringIn(a Assignment) {
	if a.Goal != "" {
		b.hookOf(a.Goal, eventBeforeInstall, false)
	}
	b.add(Step{Kind: KindInstall, Event: eventInstall, Revision: a.Goal})
	if a.Goal != "" {
		b.hookOf(a.Goal, eventAfterInstall, false)
		b.startUp(a, a.Goal)
	}
}

// startUp starts a revision that is installed and sees that it works.
func (b *builder) startUp(a Assignment, revision string) {
	b.hookOf(revision, eventStart, false)
	b.hookOf(revision, eventValidate, false)
	if !a.SkipProbe {
		b.add(Step{Kind: KindProbe, Event: eventValidate, Revision: revision})
	}
}

// admit lets traffic in again and settles.
func (b *builder) admit(traffic bool, revision string) {
	if (traffic || b.shuts) && revision != "" {
		b.hookOf(revision, eventBeforeAllow, false)
		b.hookOf(revision, eventAllow, false)
		b.hookOf(revision, eventAfterAllow, false)
	}
	b.add(Step{Kind: KindSettle, Revision: revision})
}

// back is the way back to the base after a switch, as the goal of an
// assignment.
func (b *builder) back(a Assignment, w World) []Step {
	b.rollback = true
	b.putBack(a, w, 1)
	b.admit(w.Blocked, w.Base)
	return b.report(ResultDone, w.Base)
}

// undisturb is for a goal that never stopped being installed: start it if it
// was stopped, let traffic in if it was blocked.
func (b *builder) undisturb(a Assignment, w World) []Step {
	b.rollback = true
	if w.Stopped && w.Base != "" {
		b.startUp(a, w.Base)
	}
	b.admit(w.Blocked, w.Base)
	return b.report(ResultDone, w.Base)
}

// putBack undoes what was done to the target, in reverse order.
func (b *builder) putBack(a Assignment, w World, try int) {
	if w.Undoable {
		b.undo(w)
	} else if try > 1 && w.Base != "" {
		b.shut(w)
		b.hookOf(w.Base, eventStop, true)
	}
	if (w.Undoable || w.Stopped || try > 1) && w.Base != "" {
		b.startUp(a, w.Base)
	}
}

// revert is the local way back after a failure, under the same permit.
func revert(a Assignment, w World, try int) []Step {
	b := builder{a: a, from: w.Installed, to: w.Base, rollback: true}
	b.putBack(a, w, try)
	b.admit(w.Blocked, w.Base)
	return b.report(ResultFailed, w.Base)
}

// again is the next try of an assignment that is itself the way back.
func again(a Assignment, w World) []Step {
	b := builder{a: a, from: w.Installed, to: a.Goal, rollback: true}
	b.shut(w)
	if w.Undoable && w.Installed != "" {
		b.hookOf(w.Installed, eventStop, true)
	}
	b.bringIn(a)
	b.admit(a.Traffic || w.Blocked, a.Goal)
	return b.report(ResultDone, a.Goal)
}

// closing is a program that only reports.
func closing(a Assignment, r Result, running string) []Step {
	b := builder{a: a}
	return b.report(r, running)
}

// builder collects the steps of a program.
type builder struct {
	a        Assignment
	from, to string
	rollback bool
	shuts    bool // it takes traffic away again, so it lets it in again
	steps    []Step
}

func (b *builder) add(s Step) {
	s.Generation = b.a.Generation
	s.From, s.To, s.Rollback = b.from, b.to, b.rollback || b.a.Revert
	b.steps = append(b.steps, s)
}

func (b *builder) hookOf(revision, event string, lenient bool) {
	b.add(Step{Kind: KindHook, Event: event, Revision: revision, Lenient: lenient})
}

func (b *builder) report(r Result, running string) []Step {
	b.add(Step{Kind: KindReport, Result: r, Revision: running})
	return b.steps
}
