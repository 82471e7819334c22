package e2e

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// A cut is a rule that drops what arrives at a machine, or leaves it.
type cut struct {
	in, out bool
	address string // of the other side; "" is everybody
	percent int    // of packets; 0 is all
}

// cut puts rules in force at the machine, beside those that are.
func (m *machine) cut(cuts ...cut) {
	m.site.Helper()
	rules := "table ip cuts {\n"
	for _, way := range []struct {
		hook, side string
		wanted     func(cut) bool
	}{
		{"input", "saddr", func(c cut) bool { return c.in }}, {"output", "daddr", func(c cut) bool { return c.out }},
	} {
		rules += fmt.Sprintf(" chain %s {\n  type filter hook %s priority 0\n", way.hook, way.hook)
		for _, c := range cuts {
			if !way.wanted(c) {
				continue
			}
			if c.address != "" {
				rules += "  ip " + way.side + " " + c.address
			}
			if c.percent > 0 {
				rules += fmt.Sprintf(" numgen random mod 100 < %d", c.percent)
			}
			rules += " counter drop\n"
		}
		rules += " }\n"
	}
	m.nft(rules+"}\n", "-f", "-")
}

var counted = regexp.MustCompile(`counter packets (\d+)`)

// heal takes every rule away and returns how many packets they dropped.
func (m *machine) heal() (dropped int) {
	m.site.Helper()
	for _, c := range counted.FindAllStringSubmatch(m.nft("", "list", "table", "ip", "cuts"), -1) {
		n, _ := strconv.Atoi(c[1]) // it matched digits
		dropped += n
	}
	m.nft("", "delete", "table", "ip", "cuts")
	return dropped
}

func (m *machine) nft(stdin string, args ...string) string {
	m.site.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", m.ns(), "nft"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.site.Fatalf("%s: nft %v: %v: %s\n%s", m.name, args, err, out, stdin)
	}
	return string(out)
}
