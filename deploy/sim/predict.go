package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// Prediction is a deployment to be played, and what fails in it.
type Prediction struct {
	Hosts    []deploy.Host // by name: the fleet as it is now
	Config   deploy.Config
	Revision string
	From     string   // what every host runs before; "" is nothing
	FailHost []string // names of hosts on which the revision fails
	FailZone []string // zones in which every host fails
	FailGate []string // gates that fail once they see the revision
	Seed     uint64
}

// Outcome is how a prediction went.
type Outcome struct {
	Events  []string // one line a fact, with the time since the deployment began
	Status  deploy.DeploymentStatus
	Cause   string
	Holds   []string
	Took    time.Duration
	Serving int // fewest hosts that served at once
	Exposed int // most hosts that ran the revision at once
}

// predictLimit bounds the virtual time of a prediction.
const predictLimit = 60 * 24 * time.Hour

// Predict plays a deployment by the code that decides real ones. Tasks take up
// to two seconds; approvals are given and windows open at once.
func Predict(in Prediction) (Outcome, error) {
	w := New(in.Seed, Faults{})
	for _, h := range in.Hosts {
		w.AddHost(h.Name, h.Zone, h.Labels)
	}
	if in.From != "" {
		before, _ := deploy.Builtin("all-at-once")
		w.Define("app", "group", before)
		if err := w.Deploy("app", "group", "before", in.From); err != nil {
			return Outcome{}, err
		}
		if err := w.Run(time.Hour, nil); err != nil {
			return Outcome{}, err
		}
		w.Propose(deploy.GroupDefined{App: "app", Group: "group", Selector: "true", Config: in.Config})
	} else {
		w.Define("app", "group", in.Config)
	}
	return w.predict(in)
}

func (w *World) predict(in Prediction) (out Outcome, err error) {
	rev, began := deploy.Digest(in.Revision), w.Now
	for _, h := range in.Hosts {
		if slices.Contains(in.FailHost, h.Name) || slices.Contains(in.FailZone, h.Zone) {
			w.hosts[h.Name].plan[rev] = "fail"
		}
	}
	w.Gate = func(q deploy.Question) deploy.Observation {
		o := deploy.Observation{Answer: deploy.VerdictPass, Samples: 1000, Final: q.Gate.Compare != nil}
		if slices.Contains(in.FailGate, q.Gate.Name) {
			o.Answer, o.Detail = deploy.VerdictFail, "fails as you said"
		}
		return o
	}
	out.Serving = len(in.Hosts)
	if in.From == "" {
		out.Serving = 0
	}
	w.Trace = func(at deploy.Time, line string) {
		out.Events = append(out.Events, fmt.Sprintf("%s  %s", at.Sub(began).Round(time.Second), line))
	}
	w.Quiet = func(e deploy.Event) bool {
		switch e.(type) {
		case deploy.TargetsReported, deploy.RevisionRegistered, deploy.GateObserved:
			return true
		}
		return false
	}
	w.Each = func() {
		out.Serving = min(out.Serving, w.Serving())
		out.Exposed = max(out.Exposed, w.Running()[rev])
	}
	force := func(e *deploy.DeploymentCreated) { e.Config = in.Config }
	if err := w.Deploy("app", "group", "new", in.Revision, force); err != nil {
		return out, err
	}
	d := w.State.Deployments["new"]
	done := func() bool {
		for i := 0; len(d.WaitsFor()) > 0 && i < 10; i++ {
			e := deploy.RequestMade{
				Request: deploy.Request{Actor: fmt.Sprint("approver ", i+1)}, Deployment: "new",
				Verb: deploy.VerbApprove,
			}
			for _, gate := range d.WaitsFor() {
				e.Groups = append(e.Groups, gate.Approval.Group)
			}
			_ = w.Ask(e)
		}
		return d.Status.Terminal() || d.Status == deploy.DeploymentStatusPaused && d.ScopeRevert == nil
	}
	err = w.Run(predictLimit, done)
	out.Status, out.Cause, out.Took = d.Status, d.Cause, w.Now.Sub(began)
	out.Holds = deploy.Holds(w.State, d, w.Now)
	return out, err
}
