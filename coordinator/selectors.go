package coordinator

import (
	"sync"

	"github.com/groundswell/groundswell/coordinator/access"
	"github.com/groundswell/groundswell/coordinator/fleet"
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/deploy/spec"
)

// parseApp reads a deploy.yaml into the facts that define its groups.
func parseApp(source []byte, filename string) ([]deploy.GroupDefined, error) {
	app, err := spec.Parse(source, filename)
	if err != nil {
		return nil, err
	}
	var out []deploy.GroupDefined
	for _, g := range app.Groups {
		out = append(out, deploy.GroupDefined{
			App: app.Name, Group: g.Name, Selector: g.Select, Artifacts: app.Artifacts, Config: g.Config,
			Traffic: g.Traffic, Source: string(source),
		})
	}
	return out, nil
}

// within returns who may belong to a group: whom its selector and the bound of its
// application match, by the document that the given function returns.
func within(match func(string, *deploy.Host) bool, rules func() *access.Document) fleet.Matcher {
	return func(app, selector string, h *deploy.Host) bool {
		bound := rules().Bound(app).Hosts
		return match(selector, h) && (bound == "" || match(bound, h))
	}
}

// matcher compiles each selector once. A selector was checked when its group
// was defined; one that does not compile matches nobody.
func (c *Coordinator) matcher() func(selector string, h *deploy.Host) bool {
	var mu sync.Mutex
	known := map[string]*spec.Selector{}
	return func(text string, h *deploy.Host) bool {
		mu.Lock()
		sel, seen := known[text]
		if !seen {
			var err error
			if sel, err = spec.Compile(text); err != nil {
				c.o.Log.Error("selector does not compile", "selector", text, "error", err)
			}
			known[text] = sel
		}
		mu.Unlock()
		return sel != nil && sel.Match(h)
	}
}
