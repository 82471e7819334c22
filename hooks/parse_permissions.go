package hooks

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

func (p *parser) permissions(n *yaml.Node) []Permission {
	var all []Permission
	for i, item := range p.list(n, "permissions") {
		field := fmt.Sprintf("permissions[%d]", i)
		m, ok := p.mapping(item, field)
		if !ok {
			continue
		}
		before := len(p.problems)
		perm := p.permission(m, field)
		if len(p.problems) == before {
			all = append(all, perm)
		}
	}
	return all
}

func (p *parser) permission(m fields, field string) Permission {
	p.keys(m, field, "object", "pattern", "except", "owner", "group", "mode", "acls", "context", "type")
	perm := Permission{
		Object:  p.object(m, field+".object"),
		Pattern: p.text(m.get("pattern"), field+".pattern"),
		Except:  p.texts(m.get("except"), field+".except"),
		Owner:   p.text(m.get("owner"), field+".owner"),
		Group:   p.text(m.get("group"), field+".group"),
		Mode:    p.mode(m.get("mode"), field+".mode"),
		ACLs:    p.acls(m.get("acls"), field+".acls"),
		Context: p.context(m.get("context"), field+".context"),
		Pos:     position(m.node),
	}
	if perm.Pattern == "" {
		perm.Pattern = "**"
	}
	perm.Files, perm.Directories = p.objectTypes(m.get("type"), field+".type")
	return perm
}

func (p *parser) object(m fields, field string) string {
	n := m.get("object")
	object := p.text(n, field)
	switch {
	case object == "":
		p.at(m.node, field, "missing: a permission needs the path of an object")
	case !path.IsAbs(object):
		p.at(n, field, fmt.Sprintf("%q is not a full path: it must begin with /", object))
	}
	return path.Clean("/" + object)
}

func (p *parser) texts(n *yaml.Node, field string) []string {
	var all []string
	for i, item := range p.list(n, field) {
		all = append(all, p.text(item, fmt.Sprintf("%s[%d]", field, i)))
	}
	return all
}

func (p *parser) objectTypes(n *yaml.Node, field string) (files, dirs bool) {
	if n == nil || isNull(n) {
		return true, true
	}
	for i, item := range p.list(n, field) {
		switch p.text(item, field) {
		case "file":
			files = true
		case "directory":
			dirs = true
		default:
			p.at(item, fmt.Sprintf("%s[%d]", field, i), "unsupported type "+quoted(item)+": use file or directory")
		}
	}
	return files, dirs
}

// mode reads the digits as written, whatever number YAML makes of them.
func (p *parser) mode(n *yaml.Node, field string) *uint32 {
	text := p.text(n, field)
	if text == "" {
		return nil
	}
	if len(text) > 4 {
		p.at(n, field, "invalid mode "+quoted(n)+": mode length must be 1 to 4")
		return nil
	}
	v, err := strconv.ParseUint(text, 8, 32)
	if err != nil {
		p.at(n, field, "invalid mode "+quoted(n)+": each of 1 to 4 characters must be a digit from 0 to 7")
		return nil
	}
	if n = follow(n); n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 && len(text) > 1 && text[0] == '0' {
		p.warn(n, field, fmt.Sprintf("read as the octal mode %s; CodeDeploy takes the YAML number and sets %s: write "+
			"it in quotes", text, strconv.FormatUint(v, 10)))
	}
	mode := uint32(v)
	return &mode
}

func (p *parser) context(n *yaml.Node, field string) *Context {
	if n == nil || isNull(n) {
		return nil
	}
	m, ok := p.mapping(n, field)
	if !ok {
		return nil
	}
	p.keys(m, field, "user", "name", "type", "range")
	c := &Context{
		User:  p.text(m.get("user"), field+".user"),
		Type:  p.text(m.get("type"), field+".type"),
		Range: p.text(m.get("range"), field+".range"),
	}
	if c.User == "" { // the key that agent 1.8 reads
		c.User = p.text(m.get("name"), field+".name")
	}
	if c.Type == "" {
		p.at(m.node, field+".type", "missing: a context needs a type")
	}
	if problem := rangeFault(c.Range); problem != "" {
		p.at(m.get("range"), field+".range", "invalid range "+quoted(m.get("range"))+": "+problem)
	}
	return c
}

// levelPattern is one level of an SELinux range: a sensitivity and categories.
var levelPattern = regexp.MustCompile(`^s(\d{1,4})(?::c\d{1,4}(?:[.,]c\d{1,4})*)?$`)

// rangeFault says what is wrong with LOW[-HIGH], each a level such as s0 or
// s0:c0.c255,c512.
func rangeFault(text string) string {
	if text == "" {
		return ""
	}
	last := uint64(0)
	levels := strings.Split(text, "-")
	for _, level := range levels {
		m := levelPattern.FindStringSubmatch(level)
		if m == nil || len(levels) > 2 {
			return "it must be a level such as s0 or s0:c0.c255, or two with - between"
		}
		sensitivity, _ := strconv.ParseUint(m[1], 10, 32) // digits
		_, categories, _ := strings.Cut(level, ":")
		switch {
		case sensitivity > 15:
			return "a sensitivity is s0 to s15"
		case sensitivity < last:
			return "the low level comes first"
		}
		if problem := categoriesFault(categories); problem != "" {
			return problem
		}
		last = sensitivity
	}
	return ""
}

func categoriesFault(text string) string {
	for part := range strings.SplitSeq(text, ",") {
		low := uint64(0)
		for i, c := range strings.Split(part, ".") {
			n, _ := strconv.ParseUint(strings.TrimPrefix(c, "c"), 10, 32) // digits, or nothing
			switch {
			case n > 1023:
				return "a category is c0 to c1023"
			case i > 1 || i == 1 && n <= low:
				return "categories with . between are the first and the last of a row"
			}
			low = n
		}
	}
	return ""
}

func (p *parser) acls(n *yaml.Node, field string) []ACL {
	var all []ACL
	for i, item := range p.list(n, field) {
		at := fmt.Sprintf("%s[%d]", field, i)
		acl, problem := parseACL(p.text(item, at))
		if problem != "" {
			p.at(item, at, "invalid entry "+quoted(item)+": "+problem)
			continue
		}
		if slices.ContainsFunc(all, func(a ACL) bool { return subject(a) == subject(acl) }) {
			p.at(item, at, "invalid entry "+quoted(item)+": the list has one for "+subject(acl)+" already")
			continue
		}
		all = append(all, acl)
	}
	return all
}

func subject(a ACL) string { return a.Entry[:strings.LastIndexByte(a.Entry, ':')] }

var aclKinds = map[string]string{
	"u": "user", "user": "user", "g": "group", "group": "group",
	"m": "mask", "mask": "mask", "o": "other", "other": "other",
}

// parseACL reads [default:]kind:[name:]permissions, every word also by its
// first letter.
func parseACL(text string) (ACL, string) {
	parts := strings.Split(text, ":")
	var acl ACL
	if len(parts) > 1 && (parts[0] == "d" || parts[0] == "default") {
		acl.Default, parts = true, parts[1:]
	}
	kind := aclKinds[parts[0]]
	named := kind == "user" || kind == "group"
	switch {
	case kind == "":
		return acl, "it must begin with user, group, mask or other"
	case len(parts) == 2 && !named:
		parts = []string{parts[0], "", parts[1]}
	case len(parts) == 2:
		parts = []string{parts[0], parts[1], "rwx"}
	case len(parts) != 3:
		return acl, "the form is [default:]kind:name:permissions"
	}
	name := parts[1]
	switch {
	case !acl.Default && kind != "mask" && name == "":
		return acl, "a base entry without a name is not for acls: use mode"
	case !named && name != "":
		return acl, kind + " takes no name"
	}
	perms, problem := aclPermissions(parts[2])
	acl.Entry = kind + ":" + name + ":" + perms
	if acl.Default {
		acl.Entry = "default:" + acl.Entry
	}
	return acl, problem
}

func aclPermissions(s string) (perms, problem string) {
	if len(s) == 1 && s >= "0" && s <= "7" {
		return s, ""
	}
	if s == "" || len(s) > 3 || strings.Trim(s, "rwx-") != "" {
		return s, "permissions are up to three of r, w, x and -, or a digit from 0 to 7"
	}
	for _, c := range "rwx" {
		if strings.Count(s, string(c)) > 1 {
			return s, fmt.Sprintf("permission %c comes twice", c)
		}
	}
	return s, ""
}
