package agent

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/cache"
	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/backoff"
	"github.com/groundswell/groundswell/internal/rpc"
	agentv1 "github.com/groundswell/groundswell/proto/agent/v1"
)

// stageTries is how often staging is tried before it has failed.
const stageTries = 3

// wanted is the revision to stage ahead of any permit, and the key under which
// that is asked for; empty for none.
func (t *target) wanted() (id, key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.latest
	if a == nil || a.Stage == nil {
		return "", ""
	}
	id = revisionID(a.Stage.Digest)
	st := t.checkpoint.Staging
	failed := st != nil && st.Revision == id && st.Key == a.StageKey
	done := t.releases.Has(t.app, id) && (a.Tastes == nil || t.checkpoint.Tasted == a.StageKey)
	if done || failed && time.Now().Before(t.retryAt) {
		return "", ""
	}
	return id, a.StageKey
}

// prefetch stages a revision while the application runs on undisturbed.
func (t *target) prefetch(ctx context.Context, id, key string) error {
	generation, tastes := t.checkpoint.Generation, (*agentv1.Tastes)(nil)
	t.mu.Lock()
	out := t.latest.GetOutKey()
	t.mu.Unlock()
	ctx, done := t.interruptible(ctx, func(a *agentv1.Assignment) bool {
		return a.Stage == nil || revisionID(a.Stage.Digest) != id || a.StageKey != key ||
			a.OutKey != out || // a drain waits for nothing, and neither does
			a.Permit != agentv1.Permit_PERMIT_UNSPECIFIED && a.Generation > generation // a permit
	})
	defer done()
	t.mu.Lock()
	if a := t.latest; a != nil && a.StageKey == key {
		tastes = a.Tastes
	}
	t.mu.Unlock()
	begin := time.Now()
	var f *failure
	if !t.releases.Has(t.app, id) {
		t.tell(&agentv1.Progress{App: t.app, Event: "Stage", SinceMs: begin.UnixMilli()})
		if err := t.stageTimes(ctx, id, stageTries); err != nil {
			f = ofStep(task.Step{Event: hooks.DownloadBundle.String()}, err, time.Since(begin))
		}
	}
	if f == nil && tastes != nil {
		f = t.taste(ctx, id, tastes)
	}
	if ctx.Err() != nil {
		return nil
	}
	t.retryAt = time.Time{}
	if f != nil {
		t.o.Log.Warn("staging failed", "app", t.app, "revision", id, "event", f.Event, "error", f.Message)
		t.retryAt = time.Now().Add(retryStaging)
	}
	return t.stagingEnded(id, key, tastes != nil, f)
}

// stagingEnded makes the end of staging durable and due to be reported.
func (t *target) stagingEnded(id, key string, tasted bool, f *failure) error {
	failed := t.change(func(b *checkpoint) {
		b.Staging = nil
		if f != nil {
			b.Staging = &staging{id, key, f}
		} else if tasted {
			b.Tasted = key
		}
	})
	t.out.mark(t.app)
	t.janitor.worked(t.app)
	return failed
}

// stageTimes stages with pauses between the tries; what no try will cure ends
// it at once.
func (t *target) stageTimes(ctx context.Context, id string, tries int) error {
	b := backoff.Backoff{First: 500 * time.Millisecond}
	for n := 1; ; n++ {
		err := t.stage(ctx, id)
		if err == nil || n == tries || t.incurable(err) || !b.Wait(ctx) {
			return err
		}
	}
}

// incurable reports whether no try will cure a failure of staging. An object that
// is missing may come: a store that copies itself elsewhere is late with it.
func (t *target) incurable(err error) bool {
	return artifacts.IsPermanent(err) && (t.local != nil || !artifacts.IsNotExist(err))
}

// stageStep is staging under a permit, or for a goal that was not staged
// ahead. The task itself counts the tries.
func (t *target) stageStep(ctx context.Context, s task.Step) verdict {
	ctx, done := t.interruptible(ctx, retargets(s.Generation))
	defer done()
	begin := time.Now()
	err := t.stage(ctx, s.Revision)
	if err == nil {
		err = t.roomToInstall(ctx, s.Revision)
	}
	switch {
	case err == nil:
		return ends(task.OutcomeOK)
	case ctx.Err() != nil:
		return given(ctx, s)
	case !t.incurable(err):
		b := backoff.Backoff{First: time.Second}
		b.Wait(ctx)
	}
	return failedBy(ofStep(s, err, time.Since(begin)))
}

// stage brings a revision onto the disk, complete, verified and with an appspec
// that can be used; its application is untouched. Every permit of a coordinator begins
// with it, so it is where the host says what it lets nobody deploy.
func (t *target) stage(ctx context.Context, id string) error {
	t.files.Lock()
	defer t.files.Unlock()
	if t.local != nil {
		return t.local.stage(ctx, t, id)
	}
	if err := t.mayDeploy(); err != nil {
		return artifacts.Permanent(err)
	}
	digest, err := artifacts.ParseDigest(digestOf(id))
	if err != nil {
		return err
	}
	t.mu.Lock()
	group, store := t.checkpoint.Group, t.checkpoint.Artifacts
	if a := t.latest; a != nil && a.Group != "" { // what a new target is told is not on disk yet
		group, store = a.Group, a.Artifacts
	}
	bandwidth := int64(0)
	if a := t.latest; a != nil && a.Stage != nil && revisionID(a.Stage.Digest) == id {
		bandwidth = a.StageBandwidth // ahead of a permit nobody waits
	}
	t.mu.Unlock()
	slow := &slowness{}
	opener, err := t.opener(ctx, group, store, slow)
	if err != nil {
		return err
	}
	defer slow.watch(t, id)()
	if bandwidth > 0 {
		opener = limitTo(opener, bandwidth)
	}
	if t.shared != nil {
		opener = &limited{opener, t.shared}
	}
	f := cache.Fetcher{
		Opener: opener, Cache: t.cache, Bases: t.bases(id), Move: true, MakeRoom: t.makeRoom, Progress: slow.moved,
	}
	var staged *artifacts.Manifest
	err = t.releases.Stage(ctx, t.app, id, func(ctx context.Context, dest string) error {
		if err := os.Remove(dest); err != nil { // the fetcher makes it itself
			return err
		}
		m, err := f.Stage(ctx, digest, dest)
		if err != nil {
			return err
		}
		if path, reason := m.OutsideLink(); path != "" && t.o.RefuseOutsideLinks {
			return artifacts.Permanent(fmt.Errorf("%s: %s, and this host refuses that (outsideLinks)", path, reason))
		}
		staged = m
		return artifacts.Permanent(t.checkSpec(dest, id))
	})
	t.noteSize(id, staged, err)
	if err != nil {
		return err
	}
	return artifacts.Permanent(t.checkUsers(id))
}

// mayDeploy is what the host's own file lets be deployed.
func (t *target) mayDeploy() error {
	if only := t.o.Applications; len(only) > 0 && !slices.Contains(only, t.app) {
		return fmt.Errorf("application %s may not be deployed on this host: its agent.yaml allows %s (applications)",
			t.app, strings.Join(only, ", "))
	}
	return nil
}

// checkUsers refuses a revision of which a script would run as a user that admins do not
// let the application have; also one that was staged before they said so. A script that
// names no user runs as the agent's, one with sudo as root.
func (t *target) checkUsers(id string) error {
	users := t.users()
	if len(users) == 0 {
		return nil
	}
	spec, err := hooks.Load(hooks.Root(t.releases.Dir(t.app, id), ""), "")
	if err != nil {
		return err
	}
	for _, event := range slices.Sorted(maps.Keys(spec.Hooks)) {
		for _, script := range spec.Hooks[event] {
			if err := t.checkUser(users, event, script); err != nil {
				return err
			}
		}
	}
	return nil
}

// users are those that scripts of the application may run as; empty is any.
func (t *target) users() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.latest != nil {
		return t.latest.RunAs
	}
	return t.checkpoint.RunAs
}

func (t *target) checkUser(users []string, event string, script hooks.Script) error {
	if as := runsAs(script); len(users) > 0 && !slices.Contains(users, as) {
		return fmt.Errorf("%s of %s would run as user %s, and application %s may run scripts as %s alone (runAs in the "+
			"bounds of access.yaml)", script.Location, event, as, t.app, strings.Join(users, ", "))
	}
	return nil
}

// runsAs is the user that a script runs as.
func runsAs(s hooks.Script) string {
	switch {
	case s.Sudo || s.RunAs == "" && os.Geteuid() == 0:
		return "root"
	case s.RunAs != "":
		return s.RunAs
	}
	me, err := user.Current()
	if err != nil {
		return strconv.Itoa(os.Geteuid())
	}
	return me.Username
}

// noteSize keeps the size of a revision that was staged just now.
func (t *target) noteSize(id string, m *artifacts.Manifest, err error) {
	if m != nil && err == nil {
		t.releases.NoteSize(t.app, id, m.Bytes(), m.Len())
	}
}

// installEvents are those whose scripts a new revision needs to come up.
var installEvents = []string{
	hooks.BeforeInstall.String(), hooks.AfterInstall.String(), hooks.ApplicationStart.String(),
	hooks.ValidateService.String(),
}

// checkSpec refuses, before anything is touched, an appspec that no deployment
// of a coordinator can carry out: its list of events is known. The revision
// lies in dir and will be called id.
func (t *target) checkSpec(dir, id string) error {
	root := hooks.Root(dir, "")
	spec, err := hooks.Load(root, "")
	if err == nil {
		err = spec.CheckEvents(hooks.EventNames())
	}
	if err == nil {
		err = spec.CheckScripts(root, t.releases.Dir(t.app, id), installEvents)
	}
	return err
}

// bases are the other revisions of the application on disk, newest first.
func (t *target) bases(id string) []cache.Basis {
	all, err := t.releases.List(t.app)
	if err != nil {
		return nil // the store has everything
	}
	var bases []cache.Basis
	for _, r := range all {
		if r.ID != id {
			bases = append(bases, cache.Basis{
				Digest: artifacts.Digest(digestOf(r.ID)),
				Dir:    t.releases.Dir(t.app, r.ID),
			})
		}
	}
	return bases
}

// opener reads the application's store: with the host's own credentials, or
// by URLs that the coordinator signs.
func (t *target) opener(ctx context.Context, group, store string, slow *slowness) (artifacts.Opener, error) {
	if t.o.OpenStore != nil {
		if err := t.o.allows(store); err != nil {
			return nil, err
		}
		s, err := t.o.OpenStore(ctx, store)
		if err != nil {
			return nil, fmt.Errorf("open store of %s: %w", t.app, err)
		}
		return patient{Opener: s, slow: slow}, nil
	}
	return patient{&artifacts.URLOpener{Sign: t.signer(group), Within: t.o.allows}, slow, patientFor}, nil
}

// signTimeout bounds one request for a URL.
const signTimeout = 30 * time.Second

func (t *target) signer(group string) artifacts.SignFunc {
	return func(ctx context.Context, key string) (string, error) {
		client, err := t.link.client(ctx)
		if err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(ctx, signTimeout)
		defer cancel()
		out, err := client.SignArtifact(ctx, &agentv1.SignArtifactRequest{App: t.app, Group: group, Key: key})
		if err == nil {
			return out.Url, nil
		}
		wrapped := fmt.Errorf("ask the coordinator for a URL of %s: %s", key, rpc.Text(err))
		switch rpc.Kind(err) {
		case rpc.KindNotFound, rpc.KindInvalid, rpc.KindForbidden:
			return "", artifacts.Permanent(wrapped)
		}
		return "", wrapped
	}
}
