package task

// World is what has been done to the target since it last ran undisturbed. It
// is true whatever program did it, so that a new assignment or a failure can
// plan from it.
type World struct {
	// Base is the revision that ran before anything was disturbed.
	Base string
	// Installed is what the target is switched to now.
	Installed string
	// Undoable says that an install was begun and not undone or settled: the
	// files may be a mix until Undo or a repeated Install has ended.
	Undoable bool
	// Blocked says that traffic was, or may have been, taken away.
	Blocked bool
	// Drained says of which pools it surely is: every one was asked, and none let it in
	// since. It is empty otherwise.
	Drained string `json:",omitempty"`
	// Stopped says that the application was, or may have been, stopped.
	Stopped bool
}

// Disturbed says that the application may not be serving by our doing.
func (w World) Disturbed() bool { return w.Blocked || w.Stopped || w.Undoable }

// begun notes what a step may have done from its first moment on.
func (w *World) begun(s Step) {
	switch s.Kind {
	case KindHook:
		w.hookBegun(s)
	case KindInstall:
		w.Undoable = true
	case KindWait, KindStage, KindAccept, KindCheckIdle, KindProbe, KindUndo, KindSettle, KindReport, KindVerify:
	}
}

func (w *World) hookBegun(s Step) {
	switch s.Event {
	case eventBeforeBlock, eventBlock:
		w.Blocked = true
	case eventAllow:
		w.Drained = ""
	case eventStop:
		w.Stopped = true
	}
}

// ended notes what a step that succeeded has done.
func (w *World) ended(s Step) {
	switch s.Kind {
	case KindInstall:
		w.Installed, w.Stopped = s.Revision, true
	case KindUndo:
		w.Installed, w.Undoable, w.Stopped = w.Base, false, true
	case KindSettle:
		// The last step of every way to an undisturbed target, and of a
		// deployment that leaves a failed one as it is.
		*w = World{Base: w.Installed, Installed: w.Installed}
	case KindHook:
		switch s.Event {
		case eventStart:
			w.Stopped = false
		case eventAfterAllow:
			w.Blocked = false
		}
	case KindWait, KindStage, KindAccept, KindCheckIdle, KindProbe, KindReport, KindVerify:
	}
}
