package release

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/internal/room"
)

// planBytes is what a plan and a clean-up list take a path, twice: the old
// ones stay until the new ones are whole.
const planBytes = 2 * 512

// checkRoom answers a *room.Shortage if a file system lacks room for what the
// plan writes. What is replaced stays until the install is settled, so nothing
// counts as freed.
func (r *Releases) checkRoom(app string, p *plan) error {
	own := r.app(app)
	d := demands{places: map[string]place{}, needs: map[place]need{}}
	home := d.at(own)
	d.add(home, int64(len(p.Actions)+len(p.New))*planBytes, 4)
	for _, a := range p.Actions {
		at := d.at(filepath.Dir(a.Path))
		switch a.Op {
		case opCopy:
			d.add(at, a.bytes(), 1)
		case opMkdir:
			d.add(at, 0, 2) // a whole block
		case opRemove:
		case opAccess, opTouch:
			continue
		}
		if a.Before.Exists && a.Before.Mode.IsRegular() && at.device != home.device { // backed up by a copy
			if st, err := os.Lstat(a.Path); err == nil {
				d.add(home, st.Size(), 1)
			}
		}
	}
	return d.check(func(p place) bool { return p.device == home.device && sharesBlocks(own) })
}

// NoteSize keeps how much a revision that was just staged holds. It is a hint:
// losing it costs time.
func (r *Releases) NoteSize(app, id string, bytes int64, entries int) {
	file := r.app(app, "staged", id)
	st, err := os.Stat(file)
	if err != nil {
		return
	}
	if os.WriteFile(file, fmt.Appendf(nil, "%d %d\n", bytes, entries), 0o644) == nil {
		_ = os.Chtimes(file, st.ModTime(), st.ModTime()) // its time is when the revision was staged
	}
}

// noted is what NoteSize has kept.
func (r *Releases) noted(app, id string) (bytes int64, entries int, known bool) {
	text, err := os.ReadFile(r.app(app, "staged", id))
	if err != nil {
		return 0, 0, false
	}
	_, err = fmt.Sscan(string(text), &bytes, &entries)
	return bytes, entries, err == nil && bytes >= 0 && entries >= 0 && entries <= maxPaths
}

// surelyFits answers without a plan, whose making costs as much as installing a
// part: whether every file system that the appspec names has room for the whole
// revision as often as it is named, and for the plan.
func (r *Releases) surelyFits(q Request) bool {
	bytes, entries, known := r.noted(q.App, q.To)
	if !known || q.Spec == nil {
		return false
	}
	d := demands{places: map[string]place{}, needs: map[place]need{}}
	home := d.at(r.app(q.App))
	old, err := r.readList(q.App)
	if err != nil {
		return false
	}
	d.add(home, int64(len(old))*planBytes+bytes, len(old)) // backups, if they cannot be links
	for _, f := range q.Spec.Files {
		d.add(d.at(filepath.Join(r.options.InstallRoot, f.Destination)), bytes, 2*entries)
		d.add(home, int64(entries)*planBytes, 0)
	}
	return d.check(func(place) bool { return false }) == nil
}

// bytes is the size of what is copied.
func (a action) bytes() int64 {
	st, err := os.Lstat(a.Source)
	if err != nil || !st.Mode().IsRegular() {
		return 0
	}
	return st.Size()
}

// place is a file system, by a folder of it that is there.
type place struct {
	device uint64
	dir    string
}

// need is what is written to a place.
type need struct {
	bytes int64
	files int
}

type demands struct {
	places map[string]place // by the folders that were asked for
	needs  map[place]need
}

// at is the place of dir, or of the nearest folder above it that is there.
func (d *demands) at(dir string) place {
	if p, known := d.places[dir]; known {
		return p
	}
	var st unix.Stat_t
	p := place{dir: dir}
	switch err := unix.Stat(dir, &st); {
	case err != nil && dir != filepath.Dir(dir):
		p = d.at(filepath.Dir(dir))
	case err == nil:
		p.device = uint64(st.Dev)
		for _, other := range d.places {
			if other.device == p.device {
				p = other
				break
			}
		}
	}
	d.places[dir] = p
	return p
}

func (d *demands) add(p place, bytes int64, files int) {
	n := d.needs[p]
	d.needs[p] = need{n.bytes + bytes, n.files + files}
}

// check answers the first shortage. Where copies share blocks they take none.
func (d *demands) check(shares func(place) bool) error {
	places := slices.SortedFunc(maps.Keys(d.needs), func(a, b place) int {
		return cmp.Compare(a.device, b.device)
	})
	for _, p := range places {
		n := d.needs[p]
		err := room.Check(p.dir, n.bytes, n.files)
		if errors.Is(err, room.ErrFull) && shares(p) {
			err = room.Check(p.dir, 0, n.files)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sharesBlocks reports whether copies within the file system of dir share
// their blocks until one is changed, as io.Copy then has it.
func sharesBlocks(dir string) bool {
	var files [2]*os.File
	for i := range files {
		f, err := os.CreateTemp(dir, ".clone-*")
		if err != nil {
			return false
		}
		defer func() { _ = errors.Join(f.Close(), os.Remove(f.Name())) }()
		files[i] = f
	}
	if _, err := files[0].Write(make([]byte, 4096)); err != nil {
		return false
	}
	return unix.IoctlFileClone(int(files[1].Fd()), int(files[0].Fd())) == nil
}
