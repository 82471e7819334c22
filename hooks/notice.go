package hooks

import (
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/groundswell/groundswell/internal/near"
)

// EventNames are the names of all lifecycle events in their order: what an
// appspec may have hooks for where nothing else is stated.
func EventNames() []string {
	var names []string
	for _, e := range LifecycleEvents() {
		names = append(names, e.String())
	}
	return names
}

// CheckEvents refuses hooks for names that are not in known, the list of
// events that a deployment states; it names the near one. Without such a list
// unknown names are tolerated and never run.
func (s *AppSpec) CheckEvents(known []string) error {
	var bad []string
	for _, name := range slices.Sorted(maps.Keys(s.Hooks)) {
		if !slices.Contains(known, name) {
			bad = append(bad, name+didYouMean(name, known))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("check hooks of %s: unknown lifecycle events %s: the deployment has %s",
		s.Filename, strings.Join(bad, ", "), strings.Join(known, ", "))
}

// NoScriptFor says that a deployment states an event for which there is no script; of a
// name that is no lifecycle event it names the near one.
func (s *AppSpec) NoScriptFor(event string) string {
	hint := ""
	if _, known := ParseEvent(event); !known {
		hint = didYouMean(event, append(slices.Sorted(maps.Keys(s.Hooks)), EventNames()...))
	}
	return fmt.Sprintf("%s is among the events of the deployment, and %s has no script for it%s", event, s.Filename,
		hint)
}

// Notices are what deserves a look on this host, beside the Warnings that hold
// everywhere: users and groups that it does not have, and an SELinux context
// that it does not set.
func (s *AppSpec) Notices() []Problem {
	var all []Problem
	add := func(pos Position, field, format string, args ...any) {
		all = append(all, Problem{s.Filename, pos, field, fmt.Sprintf(format, args...)})
	}
	for i, p := range s.Permissions {
		field := fmt.Sprintf("permissions[%d].", i)
		if _, err := user.Lookup(p.Owner); p.Owner != "" && err != nil && !isNumber(p.Owner) {
			add(p.Pos, field+"owner", "user %q is not known on this machine", p.Owner)
		}
		if _, err := user.LookupGroup(p.Group); p.Group != "" && err != nil && !isNumber(p.Group) {
			add(p.Pos, field+"group", "group %q is not known on this machine", p.Group)
		}
		if p.Context != nil && !SELinux() {
			add(p.Pos, field+"context", "this machine has no SELinux: no context is set")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Hooks)) {
		for i, script := range s.Hooks[name] {
			if _, err := user.Lookup(script.RunAs); script.RunAs != "" && err != nil && !isNumber(script.RunAs) {
				add(script.Pos, fmt.Sprintf("hooks.%s[%d].runas", name, i), "user %q is not known on this machine",
					script.RunAs)
			}
		}
	}
	return all
}

// SELinux reports whether this host has SELinux, which gives contexts a
// meaning.
func SELinux() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

func isNumber(s string) bool { return strings.Trim(s, "0123456789") == "" }

// MissingScript is a script that an appspec names and a revision lacks.
type MissingScript struct {
	Event, Location string
	err             error
}

// Error is what a run of the script would say.
func (m *MissingScript) Error() string { return m.err.Error() }

// Unwrap gives the cause.
func (m *MissingScript) Unwrap() error { return m.err }

// CheckScripts answers a *MissingScript for the first script of those events
// that cannot be run from dir, the revision's root, because it is not there.
// Named is what dir is called in the message. An event that comes after a hook
// may be judged before it: what a hook makes while it runs is no script.
func (s *AppSpec) CheckScripts(dir, named string, events []string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("look for scripts: %w", err)
	}
	for _, event := range events {
		if e, known := ParseEvent(event); known && !e.Scriptable() {
			continue
		}
		for _, script := range s.Hooks[event] {
			if _, err := scriptPath(real, script.Location); err != nil {
				text := strings.ReplaceAll(err.Error(), real, named)
				return &MissingScript{event, script.Location, failed(CodeMissing, "%s", text)}
			}
		}
	}
	return nil
}

// didYouMean is a question about the nearest legal name, or nothing.
func didYouMean(name string, legal []string) string {
	if best := near.Name(name, legal); best != "" {
		return " (did you mean " + best + "?)"
	}
	return ""
}
