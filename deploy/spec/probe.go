package spec

import (
	"net"
	"net/url"
	"regexp"

	"github.com/groundswell/groundswell/deploy"
)

func (p *parser) probe(path string, f *probeFile) deploy.Probe {
	set := 0
	for _, given := range []bool{f.HTTP != "", f.TCP != "", len(f.Command) > 0} {
		if given {
			set++
		}
	}
	if set != 1 {
		p.doc.Errorf(path, "asks %d questions; give exactly one of http, tcp and command", set)
	}
	p.endpoint(path, f)
	if p.doc.Has(path+".interval") && f.Interval <= 0 {
		p.doc.Errorf(path+".interval", "asks without a pause; use at least 100ms")
	}
	if p.doc.Has(path+".timeout") && f.Timeout <= 0 {
		p.doc.Errorf(path+".timeout", "gives no time to answer; use at least 100ms")
	}
	return deploy.Probe{
		HTTP: f.HTTP, Expect: f.Expect, TCP: f.TCP, Command: f.Command, Consecutive: f.Consecutive,
		Failures: f.Failures, Interval: f.Interval, Timeout: f.Timeout,
	}
}

// hostVariable is a value of the agent's own env, which every host fills in.
var hostVariable = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*\}`)

func (p *parser) endpoint(path string, f *probeFile) {
	u, err := url.Parse(hostVariable.ReplaceAllString(f.HTTP, "1"))
	if f.HTTP != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		p.doc.Errorf(path+".http", "%q is no URL; write for instance http://127.0.0.1:8080/healthz", f.HTTP)
	}
	if f.Expect != 0 && f.HTTP == "" {
		p.doc.Errorf(path+".expect", "is the status of an HTTP answer; it needs http")
	}
	if f.TCP == "" {
		return
	}
	if _, port, err := net.SplitHostPort(f.TCP); err != nil || port == "" {
		p.doc.Errorf(path+".tcp", "%q is no address; write for instance 127.0.0.1:8080", f.TCP)
	}
}
