// Package haproxy takes servers out of HAProxy's backends and puts them back, by the
// runtime API of HAProxy 2.1 and newer (level admin).
package haproxy

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
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
	if err != nil && len(out) == 0 {
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

func parseAdmins(text string) (map[string]int, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 2 || strings.TrimSpace(lines[0]) != "1" {
		return nil, errors.New(said(text))
	}
	head := strings.Fields(strings.TrimPrefix(lines[1], "#"))
	name, admin := slices.Index(head, "srv_name"), slices.Index(head, "srv_admin_state")
	if name < 0 || admin < 0 {
		return nil, fmt.Errorf("it answers in another form than HAProxy 2.1 and newer: %s", said(lines[1]))
	}
	out := map[string]int{}
	for _, l := range lines[2:] {
		f := strings.Fields(l)
		if len(f) <= max(name, admin) {
			continue
		}
		n, err := strconv.Atoi(f[admin])
		if err != nil {
			return nil, fmt.Errorf("administrative state of server %s: %w", f[name], err)
		}
		out[f[name]] = n
	}
	return out, nil
}

func parseStats(text string, admins map[string]int) (map[string]state, error) {
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
		admin, known := admins[name]
		if !known {
			continue // came between the two questions
		}
		out[name] = state{
			admin: admin, sessions: number("scur") + number("qcur"), status: field("status"),
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
			errs = append(errs, fmt.Errorf("balancer %s of %s: backend %s has no server %s; it has %s", a, b.name, s.Backend,
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
// answer, or does not know them. It asks each balancer once a backend.
func (b *Balancers) Known(ctx context.Context, all []Server) error {
	var errs []error
	asked := map[[2]string]map[string]state{}
	for _, s := range all {
		if err := s.check(); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, a := range b.addresses {
			key := [2]string{a, s.Backend}
			known, seen := asked[key]
			if !seen {
				var err error
				if known, err = look(ctx, a, s.Backend); err != nil {
					errs = append(errs, fmt.Errorf("balancer %s of %s, backend %s: %w", a, b.name, s.Backend, err))
				}
				asked[key] = known
			}
			if _, ok := known[s.Name]; !ok && known != nil {
				errs = append(errs, fmt.Errorf("balancer %s of %s: backend %s has no server %s; it has %s", a, b.name,
					s.Backend, s.Name, names(known)))
			}
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
			errs = append(errs, fmt.Errorf("balancer %s of %s: set server %s/%s to %s: %w", a, b.name, s.Backend, s.Name,
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

// Restore gives a server the state that Found found in each balancer; ready where
// that one was not asked.
func (b *Balancers) Restore(ctx context.Context, s Server, found []string) error {
	return b.set(ctx, s, func(address string) string {
		for _, f := range found {
			if was, ok := strings.CutPrefix(f, address+"="); ok && (was == "drain" || was == "maint") {
				return was
			}
		}
		return "ready"
	})
}

// Serves says why a server does not take traffic yet, "" if it does: in every
// balancer that has it ready its own checks have passed. Elsewhere it stays as it
// was found, which is no reason to wait.
func (b *Balancers) Serves(ctx context.Context, s Server) (why string, err error) {
	all, err := b.each(ctx, s)
	if err != nil {
		return "", err
	}
	var out []string
	for _, a := range b.addresses {
		is := all[a]
		if is.word() != "ready" || is.status == "no check" || strings.HasPrefix(is.status, "UP") && is.full {
			continue
		}
		out = append(out, fmt.Sprintf("balancer %s says %s (%s)", a, is.status, strings.TrimSpace(is.check)))
	}
	return strings.Join(out, "; "), nil
}
