// Package haproxy takes servers out of HAProxy's backends and puts them back, by the
// runtime API of HAProxy 2.1 and newer (level admin).
package haproxy

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Balancers are HAProxy processes that all send traffic to the same servers. Methods
// may be called concurrently.
type Balancers struct {
	name      string
	addresses []string
}

// New returns balancers at the addresses of their runtime APIs: host:port, or the path
// of a socket.
func New(name string, addresses []string) (*Balancers, error) {
	if len(addresses) == 0 {
		return nil, fmt.Errorf("balancers.%s: no address of a runtime API; write host:port or the path of a socket", name)
	}
	for _, a := range addresses {
		if strings.HasPrefix(a, "/") {
			continue
		}
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("balancers.%s: %q is no address of a runtime API; write host:port or the path of a socket",
				name, a)
		}
	}
	return &Balancers{name: name, addresses: addresses}, nil
}

// Server is one of a backend.
type Server struct{ Backend, Name string }

// word is what may stand in a command: nothing in it ends the word or the line.
var word = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$`)

func (s Server) check() error {
	if !word.MatchString(s.Backend) || !word.MatchString(s.Name) {
		return fmt.Errorf("server %q of backend %q: no name of HAProxy's that can be asked for", s.Name, s.Backend)
	}
	return nil
}

// Bits of a server's administrative state, as `show servers state` has them.
const (
	forcedMaintenance = 0x01
	configMaintenance = 0x04
	forcedDrain       = 0x08
)

// state is what a balancer says of a server.
type state struct {
	admin    int
	sessions int    // and requests that wait for it
	status   string // UP, DOWN, DRAIN, MAINT, no check, and the like
	check    string // what the last check said
	full     bool   // the last checks all passed
	agent    bool   // an agent of the server's says what state it is in, too
}

func (s state) word() string {
	switch {
	case s.admin&(forcedMaintenance|configMaintenance) != 0:
		return "maint"
	case s.admin&forcedDrain != 0:
		return "drain"
	}
	return "ready"
}

// timeout bounds one question to one balancer.
const timeout = 3 * time.Second

// maxAnswer bounds an answer, in bytes: a thousand servers have some 300 kB.
const maxAnswer = 16 << 20

// ask sends one command, on a connection of its own as the API wants it.
func ask(ctx context.Context, address, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	if _, err := conn.Write([]byte(command + "\n")); err != nil {
		return "", err
	}
	out, err := io.ReadAll(io.LimitReader(conn, maxAnswer))
	if err != nil { // half an answer is none: it could lack the sessions that are left
		return "", err
	}
	return string(out), nil
}

// look asks one balancer about every server of a backend.
func look(ctx context.Context, address, backend string) (map[string]state, error) {
	states, err := ask(ctx, address, "show servers state "+backend)
	if err != nil {
		return nil, err
	}
	admins, err := parseAdmins(states)
	if err != nil {
		return nil, err
	}
	stats, err := ask(ctx, address, "show stat "+backend+" 4 -1")
	if err != nil {
		return nil, err
	}
	return parseStats(stats, admins)
}

// admin is what `show servers state` says of a server.
type admin struct {
	state int
	agent bool
}

func parseAdmins(text string) (map[string]admin, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 2 || strings.TrimSpace(lines[0]) != "1" {
		return nil, errors.New(said(text))
	}
	head := strings.Fields(strings.TrimPrefix(lines[1], "#"))
	name, is, agent := slices.Index(head, "srv_name"), slices.Index(head, "srv_admin_state"),
		slices.Index(head, "srv_agent_state")
	if name < 0 || is < 0 || agent < 0 {
		return nil, fmt.Errorf("it answers in another form than HAProxy 2.1 and newer: %s", said(lines[1]))
	}
	out := map[string]admin{}
	for _, l := range lines[2:] {
		f := strings.Fields(l)
		if len(f) <= max(name, is, agent) {
			continue
		}
		n, err := strconv.Atoi(f[is])
		if err != nil {
			return nil, fmt.Errorf("administrative state of server %s: %w", f[name], err)
		}
		out[f[name]] = admin{n, f[agent] != "0"}
	}
	return out, nil
}

func parseStats(text string, admins map[string]admin) (map[string]state, error) {
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(strings.TrimSpace(text), "# ")))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil || len(rows) == 0 || !slices.Contains(rows[0], "svname") {
		return nil, errors.New(said(text))
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	out := map[string]state{}
	for _, row := range rows[1:] {
		field := func(name string) string {
			if i, ok := column[name]; ok && i < len(row) {
				return row[i]
			}
			return ""
		}
		number := func(name string) int { n, _ := strconv.Atoi(field(name)); return n } // empty is none
		name := field("svname")
		is, known := admins[name]
		if !known {
			continue // came between the two questions
		}
		out[name] = state{
			admin: is.state, agent: is.agent, sessions: number("scur") + number("qcur"), status: field("status"),
			check: strings.TrimSpace(strings.TrimPrefix(field("check_status"), "*") + " " + field("last_chk")),
			full:  number("check_health") >= number("check_rise")+number("check_fall")-1,
		}
	}
	return out, nil
}

// said is an answer of a balancer in one short line.
func said(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "…"
	}
	if text == "" {
		return "it answers nothing"
	}
	return strconv.Quote(text)
}

// each asks every balancer about a server, and answers by address.
func (b *Balancers) each(ctx context.Context, s Server) (map[string]state, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	out := map[string]state{}
	var errs []error
	for _, a := range b.addresses {
		all, err := look(ctx, a, s.Backend)
		is, known := all[s.Name]
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("balancer %s of %s: %w", a, b.name, err))
		case !known:
			errs = append(errs, fmt.Errorf("balancer %s of %s: backend %s has no server %s; it has %s", a, b.name,
				s.Backend,
				s.Name, names(all)))
		default:
			out[a] = is
		}
	}
	return out, errors.Join(errs...)
}

// names lists servers, a few of them.
func names(all map[string]state) string {
	const most = 10
	var out []string
	for n := range all {
		out = append(out, n)
	}
	if len(out) == 0 {
		return "none"
	}
	slices.Sort(out)
	if len(out) > most {
		out = append(out[:most], "…")
	}
	return strings.Join(out, ", ")
}

// Known says why some of the servers cannot be taken out: a balancer does not
// answer, or does not know them. It asks each balancer once a backend, all of them at
// once, and gives one up that has not answered.
func (b *Balancers) Known(ctx context.Context, all []Server) error {
	byBackend := map[string][]string{}
	for _, s := range all {
		if err := s.check(); err != nil {
			return err
		}
		byBackend[s.Backend] = append(byBackend[s.Backend], s.Name)
	}
	errs := make([]error, len(b.addresses))
	var group sync.WaitGroup
	for i, a := range b.addresses {
		group.Go(func() { errs[i] = b.known(ctx, a, byBackend) })
	}
	group.Wait()
	return errors.Join(errs...)
}

func (b *Balancers) known(ctx context.Context, address string, byBackend map[string][]string) error {
	var errs []error
	for _, backend := range slices.Sorted(maps.Keys(byBackend)) {
		known, err := look(ctx, address, backend)
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("balancer %s of %s, backend %s: %w", address, b.name, backend,
				err))...)
		}
		missing := slices.DeleteFunc(slices.Clone(byBackend[backend]),
			func(n string) bool { _, ok := known[n]; return ok })
		told := slices.DeleteFunc(slices.Clone(byBackend[backend]), func(n string) bool { return !known[n].agent })
		if len(told) > 0 {
			errs = append(errs, fmt.Errorf("balancer %s of %s: server %s/%s has an agent-check, whose word undoes a drain; "+
				"take that out of its configuration", address, b.name, backend, told[0]))
		}
		for n := range known { // asked for nothing, it says whether it may be asked
			out, err := ask(ctx, address, "set server "+backend+"/"+n)
			if err == nil && strings.Contains(out, "Permission denied") {
				err = errors.New("its runtime API lets us look and not change; write `level admin` behind its `stats socket`")
			}
			if err != nil {
				return errors.Join(append(errs, fmt.Errorf("balancer %s of %s: %w", address, b.name, err))...)
			}
			break
		}
		if n := len(missing); n > 0 {
			slices.Sort(missing)
			more := ""
			if n > 3 {
				more = fmt.Sprintf(" and %d others", n-3)
			}
			errs = append(errs, fmt.Errorf("balancer %s of %s: backend %s has no server %s%s; it has %s", address,
				b.name, backend,
				strings.Join(missing[:min(n, 3)], ", "), more, names(known)))
		}
	}
	return errors.Join(errs...)
}

// Found returns the administrative state of a server in each balancer, for Allow.
func (b *Balancers) Found(ctx context.Context, s Server) (out []string, err error) {
	all, err := b.each(ctx, s)
	if err != nil {
		return nil, err
	}
	for _, a := range b.addresses {
		out = append(out, a+"="+all[a].word())
	}
	return out, nil
}

// set gives a server an administrative state in one balancer.
func set(ctx context.Context, address string, s Server, to string) error {
	if err := s.check(); err != nil {
		return err
	}
	out, err := ask(ctx, address, "set server "+s.Backend+"/"+s.Name+" state "+to)
	if err == nil && strings.TrimSpace(out) != "" {
		err = errors.New(said(out))
	}
	return err
}

func (b *Balancers) set(ctx context.Context, s Server, to func(address string) string) error {
	var errs []error
	for _, a := range b.addresses {
		if err := set(ctx, a, s, to(a)); err != nil {
			errs = append(errs, fmt.Errorf("balancer %s of %s: set server %s/%s to %s: %w", a, b.name,
				s.Backend, s.Name,
				to(a), err))
		}
	}
	return errors.Join(errs...)
}

func to(word string) func(string) string { return func(string) string { return word } }

// Drain sends no new traffic to a server, in no balancer, from its return on.
func (b *Balancers) Drain(ctx context.Context, s Server) error { return b.set(ctx, s, to("drain")) }

// Close ends what is left of a server's sessions in no balancer, but lets none of
// them make another request.
func (b *Balancers) Close(ctx context.Context, s Server) error { return b.set(ctx, s, to("maint")) }

// Sessions counts what a server still has to do, in all balancers.
func (b *Balancers) Sessions(ctx context.Context, s Server) (n int, err error) {
	all, err := b.each(ctx, s)
	for _, is := range all {
		n += is.sessions
	}
	return n, err
}

// Out puts a server out again where a balancer forgot that it is, as it does when it
// is reloaded. It returns how many had.
func (b *Balancers) Out(ctx context.Context, s Server) (forgot int, err error) {
	all, err := b.each(ctx, s)
	for a, is := range all {
		if is.word() == "ready" {
			forgot++
			err = errors.Join(err, set(ctx, a, s, "maint"))
		}
	}
	return forgot, err
}

// Lacks names a balancer of what was found that is none of these, "" if there is
// none: coordinators have different files then.
func (b *Balancers) Lacks(found []string) string {
	for _, f := range found {
		if address, _, _ := strings.Cut(f, "="); !slices.Contains(b.addresses, address) {
			return address
		}
	}
	return ""
}

// Settle gives a server the state that was found in each balancer, ready where that
// one was not asked then, and says why it does not take traffic yet, "" if it does:
// where it is ready the balancer's own checks have passed. Without anything found it
// leaves what is. Balancers that do not answer are the error; answered is how many do.
func (b *Balancers) Settle(ctx context.Context, s Server, found []string) (waits string, answered int, silent error) {
	if err := s.check(); err != nil {
		return "", 0, err
	}
	var why []string
	var errs []error
	for _, a := range b.addresses {
		all, err := look(ctx, a, s.Backend)
		is, known := all[s.Name]
		if err == nil && !known {
			err = fmt.Errorf("backend %s has no server %s; it has %s", s.Backend, s.Name, names(all))
		}
		want := is.word()
		if len(found) > 0 {
			want = "ready"
		}
		for _, f := range found {
			if was, ok := strings.CutPrefix(f, a+"="); ok && (was == "drain" || was == "maint") {
				want = was
			}
		}
		if err == nil && is.word() != want {
			if err = set(ctx, a, s, want); err == nil {
				why = append(why, fmt.Sprintf("balancer %s is being told", a))
			}
		} else if err == nil && want == "ready" && is.status != "no check" &&
			(!strings.HasPrefix(is.status, "UP") || !is.full) {
			why = append(why, fmt.Sprintf("balancer %s says %s (%s)", a, is.status, strings.TrimSpace(is.check)))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("balancer %s of %s: %w", a, b.name, err))
			continue
		}
		answered++
	}
	return strings.Join(why, "; "), answered, errors.Join(errs...)
}
