package hooks

import (
	"bufio"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// login is where a host says what whoever changes to a user gets, as
// `su USER -c` reads it: by the modules pam_env and pam_limits.
type login struct {
	environment []string // files of KEY=VALUE
	passwd      string
	limits      string // file; a folder of the same name with .d lies beside it
}

var hostLogin = login{
	environment: []string{"/etc/environment", "/etc/default/locale"},
	passwd:      "/etc/passwd", limits: "/etc/security/limits.conf",
}

// variables is what the files of the environment set. A file that is not there
// sets nothing.
func (l login) variables() map[string]string {
	vars := map[string]string{}
	for _, file := range l.environment {
		for line := range linesOf(file) {
			key, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
			if key = strings.TrimSpace(key); ok && key != "" && !strings.ContainsAny(key, " \t") {
				vars[key] = unquoted(value)
			}
		}
	}
	return vars
}

func unquoted(s string) string {
	s = strings.TrimSpace(s)
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		return s[1 : n-1]
	}
	return s
}

// shell is the user's own. One that only says that nobody may log in is no
// shell for a script.
func (l login) shell(name string) string {
	for line := range linesOf(l.passwd) {
		f := strings.Split(line, ":")
		if len(f) == 7 && f[0] == name && f[6] != "" &&
			!slices.Contains([]string{"nologin", "false"}, filepath.Base(f[6])) {
			return f[6]
		}
	}
	return "/bin/sh"
}

// linesOf yields the lines of a file without comments and blanks.
func linesOf(file string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		f, err := os.Open(file)
		if err != nil {
			return
		}
		defer func() { _ = f.Close() }()
		for in := bufio.NewScanner(f); in.Scan(); {
			line := strings.TrimSpace(in.Text())
			if line != "" && line[0] != '#' && !yield(line) {
				return
			}
		}
	}
}

// limitPair is a soft and a hard limit; -1 leaves one as it is.
type limitPair struct{ Soft, Hard int64 }

// infinity stands for unlimited: the kernel's number is none of a limitPair.
const infinity = 1<<63 - 1

// limitItems are those of limits.conf that a script may get, by resource and
// unit. Address space and data are not: the supervisor sets limits on itself
// for the moment of the fork.
var limitItems = map[string]struct {
	resource int
	unit     int64
}{
	"core": {unix.RLIMIT_CORE, 1024}, "cpu": {unix.RLIMIT_CPU, 60}, "fsize": {unix.RLIMIT_FSIZE, 1024},
	"locks": {unix.RLIMIT_LOCKS, 1}, "memlock": {unix.RLIMIT_MEMLOCK, 1024}, "msgqueue": {unix.RLIMIT_MSGQUEUE, 1},
	"nofile": {unix.RLIMIT_NOFILE, 1}, "nproc": {unix.RLIMIT_NPROC, 1}, "rtprio": {unix.RLIMIT_RTPRIO, 1},
	"sigpending": {unix.RLIMIT_SIGPENDING, 1}, "stack": {unix.RLIMIT_STACK, 1024},
}

// How near a line of limits.conf is to a user; a nearer one wins, and of equals
// the last. Root gets only what names it.
const (
	nearAll = iota + 1
	nearGroup
	nearUser
)

// limitsOf is what limits.conf says for a user, by resource.
func (l login) limitsOf(u *user.User) map[int]limitPair {
	files, _ := filepath.Glob(strings.TrimSuffix(l.limits, ".conf") + ".d/*.conf")
	slices.Sort(files)
	out := map[int]limitPair{}
	nearest := map[[2]int]int{} // by resource and 0 soft, 1 hard
	for _, file := range append([]string{l.limits}, files...) {
		for line := range linesOf(file) {
			line, _, _ = strings.Cut(line, "#")
			f := strings.Fields(line)
			if len(f) != 4 {
				continue
			}
			item, known := limitItems[f[2]]
			value, ok := limitValue(f[3], item.unit)
			near := nearness(f[0], u)
			if !known || !ok || near == 0 {
				continue
			}
			pair, is := out[item.resource]
			if !is {
				pair = limitPair{-1, -1}
			}
			for i, to := range []*int64{&pair.Soft, &pair.Hard} {
				kind := []string{"soft", "hard"}[i]
				key := [2]int{item.resource, i}
				if (f[1] == kind || f[1] == "-") && near >= nearest[key] {
					*to, nearest[key] = value, near
				}
			}
			out[item.resource] = pair
		}
	}
	return out
}

func limitValue(text string, unit int64) (int64, bool) {
	if slices.Contains([]string{"-1", "unlimited", "infinity"}, text) {
		return infinity, true
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > infinity/unit {
		return 0, false
	}
	return n * unit, true
}

// nearness is how near a domain of limits.conf is to u, 0 for not meant.
func nearness(domain string, u *user.User) int {
	switch root := u.Uid == "0"; {
	case domain == u.Username:
		return nearUser
	case root:
		return 0
	case domain == "*":
		return nearAll
	case strings.HasPrefix(domain, "@"):
		if inGroup(u, domain[1:]) {
			return nearGroup
		}
	case strings.Contains(domain, ":"):
		if inRange(domain, u.Uid) {
			return nearUser
		}
	}
	return 0
}

func inGroup(u *user.User, name string) bool {
	g, err := user.LookupGroup(name)
	if err != nil {
		return false
	}
	ids, err := u.GroupIds()
	return u.Gid == g.Gid || err == nil && slices.Contains(ids, g.Gid)
}

// inRange reads min:max, each of which may be left out.
func inRange(domain, id string) bool {
	n, err := strconv.ParseUint(id, 10, 32)
	least, most, _ := strings.Cut(domain, ":")
	if err != nil {
		return false
	}
	if v, err := strconv.ParseUint(least, 10, 32); least != "" && (err != nil || n < v) {
		return false
	}
	if v, err := strconv.ParseUint(most, 10, 32); most != "" && (err != nil || n > v) {
		return false
	}
	return least != "" || most != ""
}

// over is a limit of this process with what the pair says.
func (p limitPair) over(now syscall.Rlimit) syscall.Rlimit {
	set := func(to *uint64, value int64) {
		switch {
		case value == infinity:
			*to = unix.RLIM_INFINITY
		case value >= 0:
			*to = uint64(value)
		}
	}
	set(&now.Max, p.Hard)
	set(&now.Cur, p.Soft)
	now.Cur = min(now.Cur, now.Max)
	return now
}

// asLogin adds to a script's variables what changing to its user gives.
func (l login) asLogin(u *user.User, vars map[string]string) {
	vars["SHELL"] = l.shell(u.Username)
	maps.Copy(vars, l.variables())
}
