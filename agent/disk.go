package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/agent/release"
	"github.com/groundswell/groundswell/agent/task"
	"github.com/groundswell/groundswell/artifacts"
	"github.com/groundswell/groundswell/artifacts/cache"
	"github.com/groundswell/groundswell/internal/room"
)

// prune deletes revisions and cached content that nothing needs, unless
// something is being staged or installed: then it is tried after that, since
// deleting a large tree slows the next install.
func (j *janitor) prune(ctx context.Context) error {
	targets, release := j.h.lockFiles()
	defer release()
	if targets == nil {
		return nil // whoever holds one says worked at its end
	}
	var errs []error
	keep := map[artifacts.Sum]struct{}{}
	for _, t := range targets {
		errs = append(errs, t.prune(), t.keepCached(keep))
	}
	if err := errors.Join(errs...); err != nil {
		return err // what to keep is not known
	}
	_, err := j.h.cache.Prune(ctx, keep, j.h.o.CacheBytes)
	return err
}

// lockFiles locks the files of all targets, or, if one is at work, of none.
func (h *host) lockFiles() (all []*target, release func()) {
	release = func() {
		for _, t := range all {
			t.files.Unlock()
		}
	}
	for _, app := range h.apps() {
		t := h.target(app)
		if !t.files.TryLock() {
			release()
			return nil, func() {}
		}
		all = append(all, t)
	}
	return all, release
}

// prune deletes the revisions beyond what is configured. The caller holds
// t.files.
func (t *target) prune() error {
	_, err := t.releases.Prune(t.app, t.mustStay()...)
	return err
}

// mustStay are the revisions that must stay on disk.
func (t *target) mustStay() []string {
	j := t.journal.Target(t.app)
	st := j.State()
	return append(t.wantedKept(), j.LastGood, j.Previous, st.Base.Running, st.Assignment.Goal)
}

// keepCached adds what the revisions on disk are made of.
func (t *target) keepCached(keep map[artifacts.Sum]struct{}) error {
	list, err := t.releases.List(t.app)
	if err != nil {
		return err
	}
	for _, r := range list {
		m, err := t.cache.Manifest(artifacts.Digest(digestOf(r.ID)))
		if err != nil {
			continue // not in the cache, or damaged there: nothing of it to keep
		}
		for sum := range cache.Keep(m) {
			keep[sum] = struct{}{}
		}
	}
	return nil
}

// refill puts into the cache what the next revisions will mostly share with
// the running ones: staging moves files out of the cache, so that an install
// creates each of them once, and creating is what an install costs. It leaves
// room for the next revision.
func (j *janitor) refill(ctx context.Context) error {
	var running []*target
	keepFree := j.h.o.KeepFree
	for _, app := range j.h.apps() {
		t := j.h.target(app)
		running = append(running, t)
		if j.h.o.KeepFree == 0 {
			keepFree = max(keepFree, t.largest())
		}
	}
	var errs []error
	for _, t := range running {
		errs = append(errs, t.refill(ctx, keepFree))
	}
	return errors.Join(errs...)
}

// largest is the size of the largest revision of the application on disk.
func (t *target) largest() (bytes int64) {
	list, err := t.releases.List(t.app)
	if err != nil {
		return 0
	}
	for _, r := range list {
		if m, err := t.cache.Manifest(artifacts.Digest(digestOf(r.ID))); err == nil {
			bytes = max(bytes, m.Bytes())
		}
	}
	return bytes
}

func (t *target) refill(ctx context.Context, keepFree int64) error {
	current, err := t.releases.Current(t.app)
	if err != nil || current == "" {
		return err
	}
	m, err := t.cache.Manifest(artifacts.Digest(digestOf(current)))
	if err != nil || m.Bytes() > t.o.CacheBytes {
		return nil // damaged or pruned: the next revision is fetched
	}
	return t.cache.Refill(ctx, m, t.releases.Dir(t.app, current), keepFree)
}

// makeRoom frees the disk for a staging or an install that lacks room: first
// the cache, the oldest first, then revisions that only their number keeps, of
// this application and of others that are not at work. It reports whether that
// was enough. What runs, the ways back and what is being staged stay. The
// caller holds t.files.
func (t *target) makeRoom(ctx context.Context, lack *room.Shortage) bool {
	if !sameDisk(lack.Dir, t.o.Root) {
		return false // nothing of the agent's takes room there
	}
	keep := map[artifacts.Sum]struct{}{}
	targets := []*target{t}
	for _, app := range t.apps() {
		if other := t.target(app); other != t && other != nil {
			targets = append(targets, other)
		}
	}
	for _, o := range targets {
		o.keepManifests(keep)
	}
	err := t.cache.Evict(ctx, keep, lack.Over)
	for _, o := range targets {
		if lack.Over() {
			break
		}
		if o != t && !o.files.TryLock() {
			continue
		}
		err = errors.Join(err, o.releases.Evict(o.app, lack.Over, o.mustStay()...))
		if o != t {
			o.files.Unlock()
		}
	}
	enough := lack.Over()
	t.o.Log.Warn("the disk is full: cached files and old revisions were deleted", "app", t.app, "folder", lack.Dir,
		"bytes", lack.Bytes, "enough", enough, "error", err)
	return enough
}

// keepManifests adds the manifests of the revisions on disk: they are small,
// and without them nothing is known to be there already.
func (t *target) keepManifests(keep map[artifacts.Sum]struct{}) {
	list, err := t.releases.List(t.app)
	if err != nil {
		return
	}
	for _, r := range list {
		if sum, err := artifacts.Digest(digestOf(r.ID)).Sum(); err == nil {
			keep[sum] = struct{}{}
		}
	}
}

// sameDisk reports whether both folders, which are there, lie on one file
// system.
func sameDisk(a, b string) bool {
	var sa, sb unix.Stat_t
	return unix.Stat(a, &sa) == nil && unix.Stat(b, &sb) == nil && sa.Dev == sb.Dev
}

// roomToInstall answers why a staged revision will not fit where it is to be
// installed. That is asked before the application is stopped.
func (t *target) roomToInstall(ctx context.Context, id string) error {
	q, err := t.request(id)
	if err != nil {
		return err
	}
	t.files.Lock()
	defer t.files.Unlock()
	err = t.releases.CheckRoom(q)
	var lack *room.Shortage
	if errors.As(err, &lack) && t.makeRoom(ctx, lack) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("install %s of %s later: %w", t.checkpoint.name(id), t.app, err)
	}
	return nil
}

// installWithRoom installs, and makes room if it has to. The caller holds
// t.files.
func (t *target) installWithRoom(ctx context.Context, q release.Request) error {
	err := t.releases.Install(ctx, q)
	var lack *room.Shortage // known before anything was touched
	if errors.As(err, &lack) && t.makeRoom(ctx, lack) {
		return t.releases.Install(ctx, q)
	}
	return err
}

// retryRoom is how often a target that broke on a full disk looks for room,
// and retryBroken how long after a try the next one comes.
const (
	retryRoom   = 5 * time.Second
	retryBroken = 30 * time.Second
)

// unbreak lets a target that broke for want of room try its way back again
// once there is some. It reports whether it does.
func (t *target) unbreak(st task.State) (bool, error) {
	if !t.waitsForRoom(st) || time.Now().Before(t.unbreakAt) || !t.ballast.restore() {
		return false, nil
	}
	t.o.Log.Warn("there is room on the disk again: the way back is tried once more", "app", t.app)
	t.unbreakAt = time.Now().Add(retryBroken)
	if err := t.change(func(b *checkpoint) { b.Cramped = false }); err != nil {
		return false, err
	}
	return true, t.journal.Retry(t.app, int(time.Now().Unix()))
}

func (t *target) waitsForRoom(st task.State) bool {
	return st.Base.Result == task.ResultBroken && t.checkpoint.Cramped && !t.checkpoint.Removed
}
