package spec

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/groundswell/groundswell/deploy"
)

// poolFile is one pool of a group: exactly one of its keys is there.
type poolFile struct {
	HAProxy  *haproxyFile  `yaml:"haproxy"`
	File     *fileFile     `yaml:"file"`
	Command  *exchangeFile `yaml:"command"`
	Nftables *portFile     `yaml:"nftables"`
	_        struct{}      `later:"nginx elbv2 route53"`
}

type haproxyFile struct {
	Balancers string `yaml:"balancers,required"`
	Backend   string `yaml:"backend,required"`
	Server    string `yaml:"server"`
}

type fileFile struct {
	Path   string        `yaml:"path,required"`
	Settle time.Duration `yaml:"settle"`
}

type portFile struct {
	Port int `yaml:"port,required" min:"1" max:"65535"`
}

type exchangeFile struct {
	Block string `yaml:"block,required"`
	Allow string `yaml:"allow,required"`
}

type exchangeTimeouts struct {
	Drain time.Duration `yaml:"drain"`
	Admit time.Duration `yaml:"admit"`
}

// hostValue is what a pool may say of a host, and anyValue whatever looks like it.
var (
	hostValue = regexp.MustCompile(`\{\{\.(Host|Zone|App|Group)\}\}`)
	anyValue  = regexp.MustCompile(`\{\{|\}\}`)
	// poolWord is a name in a balancer, or of a command: it becomes a word of a line that
	// is sent there.
	poolWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$`)
)

func (p *parser) traffic(at string, g *groupFile) *deploy.Traffic {
	if len(g.Traffic) == 0 {
		for _, key := range []string{"timeouts", "onDrainTimeout"} {
			if p.doc.Has(at + "." + key) {
				p.doc.Errorf(at+"."+key, "is about taking hosts out of pools; it needs traffic")
			}
		}
		return nil
	}
	out := &deploy.Traffic{Drain: g.Timeouts.Drain, Admit: g.Timeouts.Admit, DrainFails: g.OnDrainTimeout == "fail"}
	for key, d := range map[string]time.Duration{"drain": g.Timeouts.Drain, "admit": g.Timeouts.Admit} {
		if at := at + ".timeouts." + key; p.doc.Has(at) && (d < time.Second || d > time.Hour) {
			p.doc.Errorf(at, "%s is no time for that; use 1s to 1h", d)
		}
	}
	for i, f := range g.Traffic {
		at := fmt.Sprintf("%s.traffic[%d]", at, i)
		pool := p.pool(at, f)
		if slices.ContainsFunc(out.Pools, func(o deploy.Pool) bool { return o.Name() == pool.Name() }) {
			p.doc.Errorf(at, "%s is named twice", pool.Name())
		}
		out.Pools = append(out.Pools, pool)
	}
	return out
}

func (p *parser) pool(at string, f poolFile) (out deploy.Pool) {
	n := 0
	if h := f.HAProxy; h != nil {
		n++
		out = deploy.Pool{Kind: deploy.PoolHAProxy, Balancers: h.Balancers, Backend: h.Backend, Server: h.Server}
		if h.Server == "" {
			out.Server = "{{.Host}}"
		}
		if !strings.Contains(out.Server, "{{.Host}}") {
			p.doc.Errorf(at+".haproxy.server", "%q is the same server for every host; write for instance {{.Host}}", h.Server)
		}
		p.word(at+".haproxy.balancers", h.Balancers)
		p.word(at+".haproxy.backend", p.rendered(at+".haproxy.backend", h.Backend))
		p.word(at+".haproxy.server", p.rendered(at+".haproxy.server", out.Server))
	}
	if f.File != nil {
		n++
		out = deploy.Pool{Kind: deploy.PoolFile, Path: f.File.Path, Settle: f.File.Settle}
		if f.File.Settle < 0 || f.File.Settle > time.Hour {
			p.doc.Errorf(at+".file.settle", "%s is no time for that; use 0 to 1h", f.File.Settle)
		}
		at := at + ".file.path"
		if to := p.rendered(at, out.Path); to != "" && (!path.IsAbs(to) || path.Clean(to) != to || to == "/") {
			p.doc.Errorf(at, "%q is no file; write an absolute path such as /run/www/in-service", out.Path)
		}
	}
	if c := f.Command; c != nil {
		n++
		out = deploy.Pool{Kind: deploy.PoolCommand, Block: c.Block, Allow: c.Allow}
		p.word(at+".command.block", c.Block)
		p.word(at+".command.allow", c.Allow)
	}
	if f.Nftables != nil {
		n++
		out = deploy.Pool{Kind: deploy.PoolNftables, Port: f.Nftables.Port}
	}
	if n != 1 && p.doc.Clean(at) {
		p.doc.Errorf(at, "names %d pools; give exactly one of haproxy, file, nftables and command", n)
	}
	return out
}

// rendered is a text with something for each value of a host.
func (p *parser) rendered(at, text string) string {
	out := hostValue.ReplaceAllString(text, "x")
	if anyValue.MatchString(out) {
		p.doc.Errorf(at, "%q: known are %s", text, strings.Join([]string{
			"{{.Host}}", "{{.Zone}}", "{{.App}}", "{{.Group}}",
		}, ", "))
		return ""
	}
	return out
}

func (p *parser) word(at, text string) {
	if text != "" && !poolWord.MatchString(text) {
		p.doc.Errorf(at, "%q is no name; use letters, digits, '.', '_' and '-'", text)
	}
}
