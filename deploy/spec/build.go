package spec

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/naming"
	"github.com/groundswell/groundswell/internal/near"
)

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

// Names of deploy.yaml become keys and labels of metrics too, so beside what
// naming.Check asks of every name they are short and in lower case.
var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

const nameRule = "use at most 63 lower case letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"

// build turns what was written into an App and checks what it means. Parts
// whose form is wrong already are left out, so that one mistake is told once.
func (p *parser) build() {
	p.app.Name, p.app.Artifacts = p.file.App, p.file.Artifacts
	p.name("app", "application", p.file.App)
	p.artifacts()
	named := p.configs()
	if p.doc.Has("groups") && p.doc.Clean("groups") && len(p.file.Groups) == 0 {
		p.doc.Errorf("groups", "an application needs at least one group, such as prod: {select: ...}")
	}
	for _, name := range slices.Sorted(maps.Keys(p.file.Groups)) {
		if g := p.file.Groups[name]; g != nil {
			p.group(name, g, named)
		}
	}
}

func (p *parser) name(path, what, name string) {
	if !p.doc.Has(path) || !p.doc.Clean(path) {
		return
	}
	if !nameForm.MatchString(name) {
		p.doc.Errorf(path, "%q is no name of an %s; %s", name, what, nameRule)
	} else if err := naming.Check(what, name); err != nil {
		p.doc.Errorf(path, "%v", err)
	}
}

func (p *parser) artifacts() {
	const path = "artifacts"
	if !p.doc.Has(path) || !p.doc.Clean(path) {
		return
	}
	u, err := url.Parse(p.file.Artifacts)
	switch {
	case err != nil:
		p.doc.Errorf(path, "is no URL; write s3://bucket/prefix, minio://host:port/bucket/prefix or file:///folder")
	case u.Scheme != "s3" && u.Scheme != "minio" && u.Scheme != "file":
		p.doc.Errorf(path, "%q is no artifact store; write s3://bucket/prefix, minio://host:port/bucket/prefix or file:///folder", u.Redacted())
	case u.User != nil:
		p.doc.Errorf(path, "holds credentials, which everybody could read here; give them by the environment")
	case u.Scheme == "file" && (u.Host != "" || !strings.HasPrefix(u.Path, "/") || u.Path == "/"):
		p.doc.Errorf(path, "%q names no folder; write file:/// and an absolute path", p.file.Artifacts)
	case u.Scheme != "file" && u.Host == "":
		p.doc.Errorf(path, "%q names no bucket; write s3://bucket/prefix or minio://host:port/bucket/prefix",
			p.file.Artifacts)
	}
}

// configs builds the named configs.
func (p *parser) configs() map[string]deploy.Config {
	out := map[string]deploy.Config{}
	for _, name := range slices.Sorted(maps.Keys(p.file.Configs)) {
		path := "configs." + name
		if slices.Contains(deploy.BuiltinNames(), name) {
			p.doc.Errorf(path, "%q is the name of a built-in config; choose another", name)
		}
		if c := p.file.Configs[name]; c != nil {
			out[name] = p.config(path, name, c)
		}
	}
	return out
}

func (p *parser) group(name string, g *groupFile, named map[string]deploy.Config) {
	path := "groups." + name
	if !nameForm.MatchString(name) {
		p.doc.Errorf(path, "%q is no name of a group; %s", name, nameRule)
	} else if err := naming.Check("group", name); err != nil {
		p.doc.Errorf(path, "%v", err)
	}
	p.selector(path+".select", g.Select)
	p.app.Groups = append(p.app.Groups, Group{
		Name: name, Select: g.Select,
		Config: p.groupConfig(path+".config", g.Config, named), Traffic: p.traffic(path, g),
	})
}

func (p *parser) selector(path, text string) {
	if !p.doc.Has(path) || !p.doc.Clean(path) {
		return
	}
	if _, err := Compile(text); err != nil {
		p.doc.Errorf(path, "%v", err)
	}
}

func (p *parser) groupConfig(path string, ref configRef, named map[string]deploy.Config) deploy.Config {
	if ref.inline != nil {
		return p.config(path, "inline", ref.inline)
	}
	if ref.name == "" {
		ref.name = "staged"
	}
	if c, ok := named[ref.name]; ok {
		p.used[ref.name] = true
		return c
	}
	c, ok := deploy.Builtin(ref.name)
	if !ok && p.doc.Clean(path) && !p.doc.Has("configs."+ref.name) {
		known := append(slices.Sorted(maps.Keys(named)), deploy.BuiltinNames()...)
		hint := "known are " + strings.Join(known, ", ")
		if meant := near.Name(ref.name, known); meant != "" {
			hint = fmt.Sprintf("did you mean %q?", meant)
		}
		p.doc.Errorf(path, "no config is named %q; %s", ref.name, hint)
	}
	return c
}
