package deploy

import (
	"slices"
	"time"
)

// FreezeMax is the longest time that a freeze may be given; one that is to last
// longer has no end, and a person lifts it.
const FreezeMax = 366 * 24 * time.Hour

// Freeze holds every grant of a scope but those of rollbacks.
type Freeze struct {
	App       string `json:"app,omitempty"` // "" is every one
	Group     string `json:"group,omitempty"`
	Actor     string `json:"actor,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Wall      int64  `json:"wall"`
	Until     Time   `json:"until,omitempty"`      // when FreezesEnded is due; 0 is never
	UntilWall int64  `json:"until_wall,omitempty"` // the same in Unix milliseconds, for people only
}

// By says whose freeze it is, until when, and why, to be read behind "frozen".
func (f *Freeze) By() string {
	text := "by " + f.Actor
	if f.UntilWall > 0 {
		text += " until " + time.UnixMilli(f.UntilWall).UTC().Format("2006-01-02 15:04:05Z")
	}
	return text + reason(f.Reason)
}

// over reports whether the freeze's time is over.
func (f *Freeze) over(now Time) bool { return f.Until > 0 && f.Until <= now }

// Frozen returns the freeze that holds the group's grants, or nil. A freeze whose
// time is over holds until FreezesEnded is in the log, so that grants never
// depend on a clock.
func (s *State) Frozen(g *Group) *Freeze {
	for i := range s.Freezes {
		f := &s.Freezes[i]
		if (f.App == "" || f.App == g.App) && (f.Group == "" || f.Group == g.Name) {
			return f
		}
	}
	return nil
}

func (s *State) freezeSet(e FreezeSet) error {
	if e.For < 0 || e.For > FreezeMax {
		return refuse(Invalid, "a freeze of %s: give it an end that is to come, within %s, or none", e.For, FreezeMax)
	}
	if e.Own && s.FrozenByOther(e.App, e.Group, e.Request.Actor) {
		return refuse(Conflict, "somebody else has frozen it meanwhile, and may lift it")
	}
	f := Freeze{App: e.App, Group: e.Group, Actor: e.Request.Actor, Reason: e.Request.Reason, Wall: s.Wall}
	if e.For > 0 {
		f.Until, f.UntilWall = s.Now.Add(e.For), s.Wall+e.For.Milliseconds()
	}
	for i := range s.Freezes {
		if s.Freezes[i].App == e.App && s.Freezes[i].Group == e.Group {
			s.Freezes[i] = f
			return nil
		}
	}
	s.Freezes = append(s.Freezes, f)
	return nil
}

func (s *State) freezeLifted(e FreezeLifted) error {
	if e.Own && s.FrozenByOther(e.App, e.Group, e.Request.Actor) {
		return refuse(Conflict, "somebody else has frozen it meanwhile, and may lift it")
	}
	n := len(s.Freezes)
	s.Freezes = slices.DeleteFunc(s.Freezes, func(f Freeze) bool { return f.App == e.App && f.Group == e.Group })
	if len(s.Freezes) == n {
		return refuse(NotFound, "nothing is frozen in exactly that scope; see `dctl status`")
	}
	return nil
}

func (s *State) freezesEnded() error {
	n := len(s.Freezes)
	s.Freezes = slices.DeleteFunc(s.Freezes, func(f Freeze) bool { return f.over(s.Now) })
	if len(s.Freezes) == n {
		return refuse(Conflict, "no freeze's time is over")
	}
	return nil
}

// FrozenByOther reports whether exactly that scope is frozen by another actor.
func (s *State) FrozenByOther(app, group, actor string) bool {
	return slices.ContainsFunc(s.Freezes, func(f Freeze) bool {
		return f.App == app && f.Group == group && f.Actor != actor
	})
}

// freezes ends those whose time is over.
func (d *decision) freezes() {
	if slices.ContainsFunc(d.s.Freezes, func(f Freeze) bool { return f.over(d.now) }) {
		d.emit(FreezesEnded{})
	}
}
