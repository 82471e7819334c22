package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"github.com/groundswell/groundswell/hooks"
	"github.com/groundswell/groundswell/internal/identity"
)

// Check is one thing that Doctor has looked at.
type Check struct {
	Name string
	// Level is CheckOK, CheckWarning or CheckFailed.
	Level string
	// Text says what was found and, where it is not well, what to do.
	Text string
}

// The levels of a check. A warning is something that some deployments need.
const (
	CheckOK      = "ok"
	CheckWarning = "warning"
	CheckFailed  = "failed"
)

// Doctor looks whether an agent with these options can do its work on this
// host, beside a running one too. It changes nothing but a file that it removes.
func Doctor(ctx context.Context, o Options) []Check {
	if err := o.Validate(); err != nil {
		var all []Check
		for line := range strings.Lines(err.Error()) {
			all = append(all, Check{"options", CheckFailed, strings.TrimSpace(line)})
		}
		return all
	}
	o = o.withDefaults()
	all := []Check{{"options", CheckOK, fmt.Sprintf("host %s in zone %s", o.Name, o.Zone)}}
	all = append(all, checkUser(), o.checkRoot(), o.checkSpace(), o.checkAgent(), o.checkIdentity(), o.checkCgroup())
	all = append(all, checkPrograms()...)
	for _, address := range o.Coordinators {
		all = append(all, checkCoordinator(ctx, address))
	}
	if len(o.Coordinators) == 0 {
		all = append(all, Check{
			"coordinators", CheckWarning,
			"none is configured: a host that is not enrolled yet needs one (coordinators, --coordinator)",
		})
	}
	return all
}

func checkUser() Check {
	if os.Geteuid() != 0 {
		return Check{"user", CheckWarning, fmt.Sprintf(
			"not root but uid %d: runas, owners of files and ports below 1024 will fail", os.Geteuid())}
	}
	return Check{"user", CheckOK, "root"}
}

// checkRoot writes and locks a file where the state lies, or would lie.
func (o Options) checkRoot() Check {
	dir := o.Root
	for {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			break
		}
		dir = filepath.Dir(dir)
	}
	f, err := os.CreateTemp(dir, ".groundswell-doctor-")
	if err != nil {
		return Check{
			"state folder", CheckFailed,
			fmt.Sprintf("cannot write to %s, where %s lies: %v", dir, o.Root, err),
		}
	}
	err = errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), f.Sync(), f.Close(), os.Remove(f.Name()))
	if err != nil {
		return Check{
			"state folder", CheckFailed,
			fmt.Sprintf("the file system of %s cannot keep a journal (lock, sync): %v; put root on a local disk",
				dir, err),
		}
	}
	return Check{"state folder", CheckOK, o.Root}
}

// leastSpace is what a host should have free: room for a large revision.
const leastSpace = 1 << 30

func (o Options) checkSpace() Check {
	dir := o.Root
	var s unix.Statfs_t
	for unix.Statfs(dir, &s) != nil && dir != "/" {
		dir = filepath.Dir(dir)
	}
	free := s.Bavail * uint64(s.Bsize)
	if free < leastSpace || s.Files > 0 && s.Ffree < 100_000 {
		return Check{"disk", CheckWarning, fmt.Sprintf("%d MB and %d inodes are free below %s: revisions may not fit",
			free>>20, s.Ffree, dir)}
	}
	return Check{"disk", CheckOK, fmt.Sprintf("%d MB are free", free>>20)}
}

// checkAgent says whether an agent runs, by the lock that it holds.
func (o Options) checkAgent() Check {
	path := o.path("state", "lock")
	if _, err := os.Stat(path); err != nil {
		return Check{"agent", CheckOK, "has not run here yet"}
	}
	lock := flock.New(path)
	free, err := lock.TryLock()
	if err != nil {
		return Check{"agent", CheckFailed, fmt.Sprintf("cannot ask for the lock %s: %v", path, err)}
	}
	if free {
		_ = lock.Unlock()
		return Check{"agent", CheckWarning, "is not running on this state folder"}
	}
	return Check{"agent", CheckOK, "is running"}
}

func (o Options) checkIdentity() Check {
	cred, err := identity.Load(o.path("identity"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Check{
			"identity", CheckWarning,
			"not enrolled: start the agent with a join token (dctl token create --role agent), or with joinMethod: ec2",
		}
	case err != nil:
		return Check{"identity", CheckFailed, fmt.Sprintf("%v; remove %s and enrol anew", err, o.path("identity"))}
	case cred.Valid(time.Now()) != nil:
		return Check{"identity", CheckFailed, fmt.Sprintf(
			"%v; bring the host back as itself with the token of `dctl token create --host %s`",
			cred.Valid(time.Now()), o.Name)}
	case time.Now().After(cred.RenewAt()):
		return Check{"identity", CheckWarning, fmt.Sprintf(
			"the certificate was due for renewal at %s and ends in %s, at %s: is a coordinator within reach?",
			cred.RenewAt().Format(time.RFC3339), lifeLeft(cred), cred.Ends().Format(time.RFC3339))}
	}
	return Check{"identity", CheckOK, fmt.Sprintf(
		"enrolled; the certificate lives for another %s, until %s, and is renewed from %s",
		lifeLeft(cred), cred.Ends().Format(time.RFC3339), cred.RenewAt().Format(time.RFC3339))}
}

// lifeLeft is how long a certificate lives, for people.
func lifeLeft(c *identity.Credential) string {
	d := time.Until(c.Ends())
	if d > 48*time.Hour {
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
	return d.Round(time.Second).String()
}

func (o Options) checkCgroup() Check {
	dir, err := os.MkdirTemp("", "dagent-doctor-")
	if err != nil {
		return Check{"hooks", CheckFailed, err.Error()}
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r, err := hooks.NewRunner(hooks.Options{Dir: dir, Cgroup: o.Cgroup})
	if err != nil {
		return Check{"hooks", CheckFailed, fmt.Sprintf("cannot run hooks: %v", err)}
	}
	if r.Isolation() == "session" {
		return Check{"hooks", CheckWarning, "no cgroup v2 here that can be written: a script that hangs is ended by " +
			"session and process group, and what leaves both is only named"}
	}
	return Check{"hooks", CheckOK, "each in a cgroup of its own"}
}

func checkPrograms() []Check {
	var all []Check
	for _, p := range []struct{ name, pkg, why string }{
		{"sudo", "sudo", "sudo: true needs it where the agent is not root"},
	} {
		if _, err := exec.LookPath(p.name); err != nil {
			all = append(all, Check{
				p.name, CheckWarning,
				fmt.Sprintf("is missing: %s; install the package %s", p.why, p.pkg),
			})
		}
	}
	return all
}

func checkCoordinator(ctx context.Context, address string) Check {
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return Check{
			"coordinator", CheckFailed,
			fmt.Sprintf("%s is out of reach: %v; look at its port for agents, firewalls and DNS", address, err),
		}
	}
	_ = conn.Close()
	if _, err := roots(ctx, address); err != nil {
		return Check{
			"coordinator", CheckFailed,
			fmt.Sprintf("%s answers, but not as a coordinator does: %v", address, err),
		}
	}
	return Check{"coordinator", CheckOK, address}
}
