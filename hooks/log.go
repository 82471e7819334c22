package hooks

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// punchSlack is how much a file may hold beyond its bound before a hole is
// punched, so that not every line costs a system call.
const punchSlack = 256 << 10

// boundedLog is a log whose offsets never change although its middle goes:
// head and tail are kept, what lies between becomes a hole. A reader can thus
// resume at an offset for ever. One writer at a time.
type boundedLog struct {
	file       *os.File
	end        int64
	punched    int64 // end of the hole
	head, tail int64
	full       bool // no holes on this filesystem and the bound is reached
}

func openLog(path string, l Limits) (*boundedLog, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), f.Close())
	}
	head := (l.Head + 4095) &^ 4095
	return &boundedLog{file: f, end: st.Size(), punched: head, head: head, tail: l.Tail}, nil
}

// line appends one tagged line with the time.
func (b *boundedLog) line(tag, text string) {
	b.write([]byte(time.Now().UTC().Format("2006-01-02T15:04:05.000Z ") + tag + text + "\n"))
}

// write appends data. A log that cannot be written must not change what the
// script does, so there is no error: the bytes are lost.
func (b *boundedLog) write(data []byte) {
	if b.full {
		return
	}
	n, _ := b.file.WriteAt(data, b.end)
	b.end += int64(n)
	upto := (b.end - b.tail) &^ 4095
	if upto-b.punched < punchSlack {
		return
	}
	if err := punch(b.file, b.punched, upto); err != nil {
		b.full = b.end > b.head+b.tail
		return
	}
	b.punched = upto
}

func (b *boundedLog) close() { _ = b.file.Close() }

// punch gives the space of [from, to) back and keeps all offsets.
func punch(f *os.File, from, to int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
}

// ReadLog reads a log or a part of it from offset on and returns the bytes
// with the offset to go on from. A part of the log that was given up is
// skipped. No bytes and no error mean that the log ends here for now.
func ReadLog(path string, offset int64, limit int) ([]byte, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, offset, fmt.Errorf("read log: %w", err)
	}
	defer func() { _ = f.Close() }()
	if data, err := f.Seek(offset, unix.SEEK_DATA); err == nil {
		offset = data
	} else if errors.Is(err, unix.ENXIO) {
		return nil, offset, nil
	}
	if hole, err := f.Seek(offset, unix.SEEK_HOLE); err == nil {
		limit = int(min(int64(limit), hole-offset))
	}
	buf := make([]byte, max(limit, 0))
	n, err := f.ReadAt(buf, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, offset, fmt.Errorf("read log: %w", err)
	}
	return buf[:n], offset + int64(n), nil
}

// tailOf returns the last TailSize bytes of a log as valid UTF-8 without the
// final line end.
func tailOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	buf := make([]byte, 2*TailSize)
	n, _ := f.ReadAt(buf, max(0, st.Size()-int64(len(buf))))
	return lastText(string(buf[:n]))
}

func lastText(s string) string {
	s = strings.ToValidUTF8(strings.TrimRight(s, "\n"), "\uFFFD")
	if len(s) <= TailSize {
		return s
	}
	s = s[len(s)-TailSize:]
	if _, whole, more := strings.Cut(s, "\n"); more {
		return whole // it begins with a line, unless one is longer than all
	}
	for len(s) > 0 && !utf8.RuneStart(s[0]) {
		s = s[1:]
	}
	return s
}
