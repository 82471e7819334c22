package release

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/internal/durable"
)

// ErrNoBaseline says that nothing is known to compare installed files with.
var ErrNoBaseline = errors.New("no baseline of the installed files")

// Edits are installed files that are not what the last hook left.
type Edits struct {
	Files int
	Paths []string // the first few
}

// pathsTold is how many of the edited files are named.
const pathsTold = 5

// Comparison is what a look at the installed files has found.
type Comparison struct {
	Edits Edits
	// found is what was learned about paths that are not edited: their content,
	// or that nothing but their stamps has changed.
	found map[string]mark
}

// mark is what a path of the clean-up list is like.
type mark struct {
	Path  string      `json:",omitempty"`
	Gone  bool        `json:",omitempty"`
	Mode  fs.FileMode `json:",omitempty"` // type and permissions
	UID   uint32      `json:",omitempty"`
	GID   uint32      `json:",omitempty"`
	Size  int64       `json:",omitempty"`
	Mtime int64       `json:",omitempty"` // nanoseconds, as Ctime
	Ctime int64       `json:",omitempty"`
	Inode uint64      `json:",omitempty"`
	Link  string      `json:",omitempty"` // where a symlink leads
	// Sum is the SHA-256 of a file's content. It is taken by the first comparison
	// that finds the file untouched: a deployment does not wait for it.
	Sum string `json:",omitempty"`
}

func (r *Releases) baseline(app string) string { return r.app(app, "baseline") }

// NoteBaseline notes what the installed files are like now, which is what later
// comparisons hold them against: call it when the last hook of a deployment has
// ended. It reads no content. It is durable on return.
func (r *Releases) NoteBaseline(app string) error {
	paths, err := r.readList(app)
	if err == nil {
		err = r.writeBaseline(app, func(put func(mark) error) error {
			for _, path := range paths {
				m, err := markOf(path)
				if err == nil {
					err = put(m)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("note what the files of %s are like: %w", app, err)
	}
	return nil
}

// ForgetBaseline makes ErrNoBaseline the answer of comparisons.
func (r *Releases) ForgetBaseline(app string) error { return durable.Remove(r.baseline(app)) }

func (r *Releases) writeBaseline(app string, fill func(put func(mark) error) error) error {
	return durable.WriteTo(r.baseline(app), 0o600, func(f io.Writer) error {
		w := bufio.NewWriter(f)
		enc := json.NewEncoder(w)
		return errors.Join(fill(func(m mark) error { return enc.Encode(m) }), w.Flush())
	})
}

// readBaseline calls each with every mark, in order. It holds one at a time.
func (r *Releases) readBaseline(app string, each func(mark) error) error {
	f, err := os.Open(r.baseline(app))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoBaseline
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for dec := json.NewDecoder(bufio.NewReader(f)); ; {
		var m mark
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read %s: %w", f.Name(), err)
		}
		if err := each(m); err != nil {
			return err
		}
	}
}

// Compare holds the installed files against the baseline. Before each path, and
// before each read of content, pace is called with the bytes to be read; it may
// wait, and its error ends the comparison. What is edited while a deployment
// goes on means nothing: the caller drops the answer if one began meanwhile.
// Compare changes nothing and may run beside every other method.
func (r *Releases) Compare(app string, pace func(bytes int) error) (Comparison, error) {
	c := Comparison{found: map[string]mark{}}
	err := r.readBaseline(app, func(was mark) error {
		if err := pace(0); err != nil {
			return err
		}
		is, edited, err := was.compare(pace)
		switch {
		case err != nil:
			return err
		case edited:
			if c.Edits.Files++; c.Edits.Files <= pathsTold {
				c.Edits.Paths = append(c.Edits.Paths, was.Path)
			}
		case is != was:
			c.found[was.Path] = is
		}
		return nil
	})
	if err != nil {
		return Comparison{}, fmt.Errorf("compare the files of %s with what the last hook left: %w", app, err)
	}
	return c, nil
}

// Learn adds what a comparison has found to the baseline, which must not have
// been noted anew since.
func (r *Releases) Learn(app string, c Comparison) error {
	if len(c.found) == 0 {
		return nil
	}
	left := maps.Clone(c.found)
	err := r.writeBaseline(app, func(put func(mark) error) error {
		return r.readBaseline(app, func(m mark) error {
			if is, ok := left[m.Path]; ok {
				m = is
			}
			return put(m)
		})
	})
	if err != nil {
		return fmt.Errorf("keep sums of the files of %s: %w", app, err)
	}
	return nil
}

// markOf is a path as it is now, without its content.
func markOf(path string) (mark, error) {
	m := mark{Path: path}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		m.Gone = true
		return m, nil
	case err != nil:
		return m, err
	}
	m.Mode = info.Mode()
	if m.Mode.IsDir() { // what lies in it is not its own, and it may be shared
		m.Mode = fs.ModeDir
		return m, nil
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		m.UID, m.GID, m.Inode = st.Uid, st.Gid, st.Ino
		m.Ctime = st.Ctim.Nano()
	}
	if m.Mode&fs.ModeSymlink != 0 {
		m.Link, err = os.Readlink(path)
		m.Inode, m.Ctime = 0, 0 // where it leads is all there is to it
		return m, err
	}
	m.Size, m.Mtime = info.Size(), info.ModTime().UnixNano()
	return m, nil
}

// compare says whether a path was edited since it was marked, and what is known
// of it now if it was not.
func (m mark) compare(pace func(int) error) (is mark, edited bool, err error) {
	if is, err = markOf(m.Path); err != nil {
		return m, true, nil // it cannot even be looked at any more
	}
	if m.Gone != is.Gone || m.Mode != is.Mode || m.UID != is.UID || m.GID != is.GID || m.Link != is.Link ||
		m.Size != is.Size {
		return m, true, nil
	}
	is.Sum = m.Sum
	stamped := is != m // written, or only touched, linked or put back
	if !is.Mode.IsRegular() || is.Gone || !stamped && m.Sum != "" {
		return is, false, nil
	}
	if stamped && m.Sum == "" && m.Mtime != is.Mtime {
		return m, true, nil // nobody knows what it held
	}
	sum, err := sumOf(is, pace)
	switch {
	case errors.Is(err, errUnreadable):
		return m, stamped, nil
	case err != nil:
		return m, false, err
	case m.Sum != "" && sum != m.Sum:
		return m, true, nil
	}
	is.Sum = sum
	return is, false, nil
}

// errUnreadable is a file that cannot be read as it was found.
var errUnreadable = errors.New("it cannot be read, or changes while it is read")

// sumOf is the sum of a file that stays, while it is read, what it is.
func sumOf(is mark, pace func(int) error) (string, error) {
	fd, err := unix.Open(is.Path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", errUnreadable
	}
	f := os.NewFile(uintptr(fd), is.Path)
	defer func() { _ = f.Close() }()
	h, buf := sha256.New(), make([]byte, min(compareBuffer, int(is.Size)+1))
	for {
		if err := pace(len(buf)); err != nil {
			return "", err
		}
		n, err := f.Read(buf)
		_, _ = h.Write(buf[:n]) // a hash never fails
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", errUnreadable
		}
	}
	now, err := markOf(is.Path)
	now.Sum = is.Sum
	if err != nil || now != is {
		return "", errUnreadable
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
