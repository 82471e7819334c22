package hooks

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxLine is where a line without an end is broken, in bytes.
const maxLine = 64 << 10

// pump copies what a script writes to its two files into the log, line by
// line, and gives the files' space back behind itself. The script writes with
// O_APPEND to an ordinary file, so it never waits and never fails.
type pump struct {
	dir     runDir
	log     *boundedLog
	sources [2]*source
}

// source is one of the two files and how far it was copied.
type source struct {
	file    *os.File
	tag     string
	off     int64
	punched int64
	partial []byte
	backlog int64
}

// pumped is the durable form of a pump's progress.
type pumped struct{ Stdout, Stderr int64 }

func openPump(dir runDir, l Limits) (*pump, error) {
	log, err := openLog(dir.file("log"), l)
	if err != nil {
		return nil, err
	}
	p := &pump{dir: dir, log: log}
	var done pumped
	_ = dir.readJSON("pumped", &done) // absent before the first save
	for i, name := range []string{"stdout", "stderr"} {
		f, err := os.OpenFile(dir.file(name), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
		if err != nil {
			p.close()
			return nil, fmt.Errorf("open output of a script: %w", err)
		}
		off := [...]int64{done.Stdout, done.Stderr}[i]
		p.sources[i] = &source{file: f, tag: "[" + name + "]", off: off, punched: off, backlog: l.Backlog}
	}
	return p, nil
}

// stepTime bounds a step on each stream: the timeout of a script that writes
// without end, on a machine that hardly keeps up, waits for no more than that
// and one buffer.
const stepTime = 20 * time.Millisecond

// step copies what there is now, as far as its time goes, and reports whether
// there was anything.
func (p *pump) step() bool {
	moved := false
	for _, s := range p.sources {
		for end := time.Now().Add(stepTime); s.read(p.log); {
			moved = true
			if time.Now().After(end) { // so that a flood on one stream leaves the other its turn
				break
			}
		}
	}
	return moved
}

// finish copies everything up to now, unended lines too, and saves progress.
func (p *pump) finish() error {
	for _, s := range p.sources {
		st, err := s.file.Stat()
		if err != nil {
			return fmt.Errorf("finish output of a script: %w", err)
		}
		for s.off < st.Size() && s.read(p.log) {
		}
		if len(s.partial) > 0 {
			p.log.line(s.tag, string(s.partial))
			s.partial = nil
		}
		s.free()
	}
	return p.dir.writeJSON("pumped", pumped{p.sources[0].off, p.sources[1].off})
}

func (p *pump) close() {
	p.log.close()
	for _, s := range p.sources {
		if s != nil {
			_ = s.file.Close()
		}
	}
}

// read copies at most one buffer and reports whether there was anything.
func (s *source) read(log *boundedLog) bool {
	st, err := s.file.Stat()
	if err != nil {
		return false
	}
	if st.Size() < s.off { // the script opened /dev/stderr anew and cut the file
		s.off, s.punched = 0, 0
	}
	if !s.chunk(log) {
		return false
	}
	if behind := st.Size() - s.off; behind > s.backlog { // after a chunk: the first words count
		log.line("[groundswell]", fmt.Sprintf("%d bytes of %s dropped: the script writes faster than they can be kept",
			behind-maxLine, s.tag))
		s.off, s.partial = st.Size()-maxLine, nil
	}
	if s.off-s.punched > punchSlack {
		s.free()
	}
	return true
}

func (s *source) chunk(log *boundedLog) bool {
	buf := make([]byte, maxLine)
	n, _ := s.file.ReadAt(buf, s.off)
	s.off += int64(n)
	s.lines(buf[:n], log)
	return n > 0
}

func (s *source) lines(data []byte, log *boundedLog) {
	data = append(s.partial, data...)
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 && len(data) < maxLine {
			break
		}
		if i < 0 || i > maxLine {
			log.line(s.tag, string(data[:maxLine]))
			data = data[maxLine:]
			continue
		}
		log.line(s.tag, string(data[:i]))
		data = data[i+1:]
	}
	s.partial = bytes.Clone(data)
}

// free gives the space of what was copied back. Where the filesystem knows no
// holes the file is cut instead; what was written in between is then lost.
func (s *source) free() {
	err := punch(s.file, s.punched, s.off)
	if s.off == s.punched || err == nil {
		s.punched = s.off
		return
	}
	if errors.Is(err, unix.EOPNOTSUPP) && s.file.Truncate(0) == nil {
		s.off, s.punched = 0, 0
	}
}
