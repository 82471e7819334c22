package release

import (
	"cmp"
	"errors"
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
			d.add(at, a.size, 1)
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
