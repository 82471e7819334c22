package hooks

import (
	"fmt"
	"maps"
	"os/user"
	"regexp"
	"slices"
	"strconv"
)

// Env is what a script is run with.
type Env struct {
	// ID names the run: unique for each (target, generation, event, attempt),
	// letters, digits, ".", "_" and "-". A run id is started at most once.
	ID string
	// Root is the revision's root: locations are relative to it and it is the
	// working directory. CodeDeploy's 1.x agent documents none; scripts in
	// the field use paths relative to the archive root or absolute ones.
	Root string
	// Event is the name in LIFECYCLE_EVENT; custom events are allowed.
	Event             string
	Application       string
	DeploymentID      string
	DeploymentGroup   string
	DeploymentGroupID string
	// Bundle is set when the revision came from an object store.
	Bundle *Bundle
	// Extra comes from the agent's configuration and the deployment; it wins
	// over everything but the variables of CodeDeploy.
	Extra map[string]string
}

// Bundle says where in an object store the revision came from. Version and
// ETag may be empty.
type Bundle struct {
	Bucket, Key, Version, ETag string
}

// idPattern keeps a run id a plain file name.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$`)

// defaultPath is the PATH of a script: the agent's own environment is not
// handed on.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// variables is the whole environment of a script run by u, sorted. With a
// login it has what changing to the user gives.
func (e Env) variables(u *user.User, l *login) []string {
	all := map[string]string{"PATH": defaultPath, "LANG": "C.UTF-8", "SHELL": "/bin/sh"}
	if l != nil {
		l.asLogin(u, all)
	}
	maps.Copy(all, map[string]string{"HOME": u.HomeDir, "USER": u.Username, "LOGNAME": u.Username, "PWD": e.Root})
	maps.Copy(all, e.Extra)
	maps.Copy(all, e.deployment())
	list := make([]string, 0, len(all))
	for _, k := range slices.Sorted(maps.Keys(all)) {
		list = append(list, k+"="+all[k])
	}
	return list
}

// deployment is the part of the environment that CodeDeploy defines.
func (e Env) deployment() map[string]string {
	vars := map[string]string{
		"APPLICATION_NAME":      e.Application,
		"DEPLOYMENT_ID":         e.DeploymentID,
		"DEPLOYMENT_GROUP_NAME": e.DeploymentGroup,
		"DEPLOYMENT_GROUP_ID":   e.DeploymentGroupID,
		"LIFECYCLE_EVENT":       e.Event,
	}
	if b := e.Bundle; b != nil {
		vars["BUNDLE_BUCKET"], vars["BUNDLE_KEY"] = b.Bucket, b.Key
		if b.Version != "" {
			vars["BUNDLE_VERSION"] = b.Version
		}
		if b.ETag != "" {
			vars["BUNDLE_ETAG"] = b.ETag
		}
	}
	return vars
}

// credential is who a script runs as.
type credential struct {
	UID, GID uint32
	Groups   []uint32
}

// account finds the user of a script. The credential is nil when the script
// runs as the agent's own user.
func account(s Script, agentUID int) (*user.User, *credential, error) {
	if s.RunAs == "" {
		u, err := user.LookupId(strconv.Itoa(agentUID))
		if err != nil { // a user without a name is still a user
			u = &user.User{Uid: strconv.Itoa(agentUID), Username: strconv.Itoa(agentUID), HomeDir: "/"}
		}
		return u, nil, nil
	}
	u, err := user.Lookup(s.RunAs)
	if err != nil {
		u, err = user.LookupId(s.RunAs)
	}
	if err != nil {
		return nil, nil, failed(CodeFailed, "run script as user %q: no such user on this host", s.RunAs)
	}
	if u.Uid == strconv.Itoa(agentUID) {
		return u, nil, nil
	}
	if agentUID != 0 {
		return nil, nil, failed(CodeFailed, "run script as user %q: the agent is not root", s.RunAs)
	}
	cred, err := credentialOf(u)
	if err != nil {
		return nil, nil, failed(CodeFailed, "run script as user %q: %w", s.RunAs, err)
	}
	return u, cred, nil
}

func credentialOf(u *user.User) (*credential, error) {
	names, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	ids := make([]uint32, 0, len(names)+2)
	for _, text := range append([]string{u.Uid, u.Gid}, names...) {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read user or group number: %w", err)
		}
		ids = append(ids, uint32(n))
	}
	return &credential{UID: ids[0], GID: ids[1], Groups: ids[2:]}, nil
}
