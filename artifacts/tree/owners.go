package tree

import (
	"fmt"
	"os"
	"os/user"
	"strconv"

	"github.com/groundswell/groundswell/artifacts"
)

// Owners maps what an archive stated to this host's numbers. It is empty
// unless the process is root: nobody else may give files away.
type Owners map[artifacts.Owner]ids

type ids struct{ uid, gid int }

// NewOwners knows those of m.
func NewOwners(m *artifacts.Manifest) Owners {
	o := Owners{}
	if os.Geteuid() != 0 {
		return o
	}
	for e := range m.All() {
		o.Learn(e.Owner)
	}
	return o
}

// Learn looks a stated owner up, once.
func (o Owners) Learn(w artifacts.Owner) {
	if _, known := o[w]; !known && w != (artifacts.Owner{}) && os.Geteuid() == 0 {
		o[w] = lookup(w)
	}
}

// lookup prefers names to numbers, as tar does: an archive from a build
// machine means the user deploy, not the number 1001.
func lookup(o artifacts.Owner) ids {
	out := ids{o.UID, o.GID}
	if u, err := user.Lookup(o.User); o.User != "" && err == nil {
		out.uid = number(u.Uid, out.uid)
	}
	if g, err := user.LookupGroup(o.Group); o.Group != "" && err == nil {
		out.gid = number(g.Gid, out.gid)
	}
	return out
}

func number(s string, otherwise int) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return otherwise
	}
	return n
}

func (o Owners) give(f *os.File, e artifacts.Entry) error {
	id, ok := o[e.Owner]
	if !ok {
		return nil
	}
	if err := f.Chown(id.uid, id.gid); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	return nil
}

func (o Owners) giveLink(root *os.Root, e artifacts.Entry) error {
	id, ok := o[e.Owner]
	if !ok {
		return nil
	}
	if err := root.Lchown(e.Path, id.uid, id.gid); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	return nil
}
